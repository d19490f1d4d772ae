"""Two processes with gloo end at the weights of one process, in fp64, by the real loop."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from motet.checkpoint import load_folder
from motet.errors import Interrupted
from motet.losses import LossConfig, Objective
from motet.model import Motet
from motet.train.distributed import World, join
from motet.train.loop import TrainConfig, train
from motet.train.run import RunFolder
from motet.types import TokenBatch
from tests.train.processes import two_processes
from tests.train.training_fakes import CONFIG, make_batch

MODEL = replace(
    CONFIG,
    mot=replace(CONFIG.mot, block=replace(CONFIG.mot.block, dropout=0.0)),
    embed=replace(CONFIG.embed, dropout=0.0),
    head_dropout=0.0,
    late_heads=True,
)
LOSS = LossConfig(class_weights={"mood": (0.4, 1.7)}, focal=1.0, balance="uncertainty")
TRAIN = TrainConfig(epochs=2, lr=3e-3, metric="loss", log_steps=1, checkpoint_seconds=0, ema=0.8)


class Slices:
    """Batches of 9 samples, of which every rank has its part. Sound lies with the last samples only, so
    that rank 0 sees none of it in the second batch, and nobody in the third."""

    def __init__(self, world: World, steps: int = 4) -> None:
        self.world, self.steps_per_epoch = world, steps

    def batches(self, epoch: int, start: int = 0) -> Iterator[TokenBatch]:
        for position in range(start, self.steps_per_epoch):
            silent = {1: 5, 2: 9}.get(position, 0)
            batch = _without_sound(make_batch(100 * epoch + position, 9), silent)
            mood = batch.targets["mood"].clone()
            mood[position] = -100
            batch = replace(batch, targets={"mood": mood}, group=torch.arange(9) // 2)
            batch = replace(batch, values={**batch.values, "sound": batch.values["sound"].double()})
            bounds = [0, 5, 9] if self.world.size == 2 else [0, 9]
            yield batch.rows(bounds[self.world.rank], bounds[self.world.rank + 1])


def _without_sound(batch: TokenBatch, samples: int) -> TokenBatch:
    """The first `samples` lose their sound; those that had nothing else get a word."""
    from motet.types import Layout

    keep = ~((batch.layout.modality == 1) & (batch.layout.sample < samples))
    has = batch.layout.present()
    bare = [i for i in range(samples) if not has[i, 0]]
    modality = torch.cat([batch.layout.modality[keep], torch.zeros(len(bare), dtype=torch.int64)])
    sample = torch.cat([batch.layout.sample[keep], torch.tensor(bare, dtype=torch.int64)])
    layout, order = Layout.build(("text", "sound"), modality, sample, samples=9)
    words = torch.cat([batch.values["text"], torch.full((len(bare),), 5)])
    text = keep[batch.layout.slice_of("text")]
    number = torch.cat([torch.arange(int(text.sum())), torch.full((int(keep.sum()) - int(text.sum()),), -1)])
    number = torch.cat([number, torch.arange(len(batch.values["text"]), len(words))])[order]
    values = {
        "text": words[number[layout.slice_of("text")]],
        "sound": batch.values["sound"][keep[batch.layout.slice_of("sound")]],
    }
    return replace(batch, layout=layout, values=values)


def run(path: Path, world: World, *, micro: int = 0, stop_at: int = -1, resume: bool = False) -> None:
    torch.manual_seed(0)
    model, objective = Motet(MODEL).double(), Objective(LOSS, MODEL).double()
    with world.main_first():
        folder = RunFolder(path, {}, resume=resume or not world.main)
    train(
        model,
        objective,
        Slices(world),
        Slices(World(), steps=2),
        replace(TRAIN, micro_batch=micro, parallel=world.parallel),
        run=folder,
        stop=lambda step: step == stop_at and world.main,  # one rank is told, all stop
        world=world,
    )


WAYS = (("ddp", 0), ("ddp", 2), ("fsdp", 2))


def child(folder: str) -> None:
    """What each of the two processes does: runs that are stopped in the middle and resumed."""
    for parallel, micro in WAYS:
        world = join(parallel)  # type: ignore[arg-type]
        assert world.size == 2
        path = Path(folder) / f"{parallel}-{micro}"
        with pytest.raises(Interrupted):
            run(path, world, micro=micro, stop_at=3)
        dist.barrier()
        run(path, world, micro=micro, resume=True)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RUNS/alone by this process, RUNS/ddp-0 and so on by two."""
    folder = tmp_path_factory.mktemp("runs")
    run(folder / "alone", World())
    code = f"from tests.train.test_distributed import child; child({str(folder)!r})"
    two_processes(code)
    return folder


@pytest.mark.parametrize(("parallel", "micro"), WAYS)
def test_two_processes_end_where_one_does(runs: Path, parallel: str, micro: int) -> None:
    paths = (runs / "alone", runs / f"{parallel}-{micro}")
    for kind in ("last", "best"):
        one, two = (load_folder(path / "checkpoints" / kind) for path in paths)
        assert one.tensors.keys() == two.tensors.keys()
        for name, expected in one.tensors.items():
            assert float((two.tensors[name] - expected).abs().max()) < 1e-10, (kind, name)
    rows = [RunFolder(path, {}, resume=True).history() for path in paths]
    assert [(r["kind"], r["step"]) for r in rows[0]] == [(r["kind"], r["step"]) for r in rows[1]]
    for a, b in zip(*rows, strict=True):
        if a["kind"] == "step":
            assert b["loss"] == pytest.approx(a["loss"], abs=1e-10)


def test_the_loss_needs_the_rows_of_all_ranks() -> None:
    """Were each rank's loss its own, the mean of both would differ: the test above could then fail."""
    torch.manual_seed(0)
    model, objective = Motet(MODEL).double(), Objective(LOSS, MODEL).double()
    whole = next(iter(Slices(World()).batches(0)))
    parts = [next(iter(Slices(World(rank, 2)).batches(0))) for rank in range(2)]
    losses = [float(objective(model(batch), batch)[0].detach()) for batch in (whole, *parts)]
    assert abs(losses[0] - sum(losses[1:]) / 2) > 1e-3
