"""One of two processes runs out of memory: all of them halve, and end at the weights of one process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from motet.checkpoint import load_folder
from motet.errors import MotetError
from motet.losses import Objective
from motet.model import Motet
from motet.train import gradcache
from motet.train.distributed import World, join
from motet.train.loop import train
from motet.train.run import RunFolder
from motet.types import Output, TokenBatch
from tests.train.processes import two_processes
from tests.train.test_distributed import LOSS, MODEL, TRAIN, Slices
from tests.train.training_fakes import Said

CASES = (("ddp", "forward"), ("ddp", "backward"), ("ddp", "loss"), ("fsdp", "loss"))


def run(path: Path, world: World, lacking: Callable[[Motet, Objective], None] | None = None) -> list[str]:
    torch.manual_seed(0)
    model, objective = Motet(MODEL).double(), Objective(LOSS, MODEL).double()
    if lacking is not None:
        lacking(model, objective)
    with world.main_first():
        folder = RunFolder(path, {}, resume=not world.main)
    heard = Said()
    train(model, objective, Slices(world), None, TRAIN, run=folder, world=world, reporter=heard)
    return heard.lines


def fail(*_: object) -> Tensor:
    raise torch.OutOfMemoryError("CUDA out of memory")


def with_more_than_two(module: nn.Module, inputs: tuple[TokenBatch, ...], output: Output) -> None:
    if len(inputs[0].ids) > 2:
        fail()


def in_the_backward(module: nn.Module, inputs: tuple[TokenBatch, ...], output: Output) -> None:
    if len(inputs[0].ids) > 2 and torch.is_grad_enabled():
        output.predictions["mood"].register_hook(fail)


class Once:
    """The loss of the third batch does not fit: it has fewer tokens than the first, and was thought to."""

    def __init__(self) -> None:
        self.left = 3

    def __call__(self, module: nn.Module, inputs: object) -> None:
        self.left -= 1
        if self.left == 0:
            fail()


def short_of(memory: str, rank: int) -> Callable[[Motet, Objective], None]:
    def lacking(model: Motet, objective: Objective) -> None:
        match memory if rank == 1 else "":
            case "forward":
                model.register_forward_hook(with_more_than_two)
            case "backward":
                model.register_forward_hook(in_the_backward)
            case "loss":
                objective.register_forward_pre_hook(Once())

    return lacking


def child(folder: str) -> None:
    for parallel, memory in CASES:
        world = join(parallel)  # type: ignore[arg-type]
        said = run(Path(folder) / f"{parallel}-{memory}", world, short_of(memory, world.rank))
        assert said == ["out of memory: from now on 3 samples at once; the batch stays whole"], said


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    run(folder / "alone", World())
    two_processes(f"from tests.train.test_distributed_memory import child; child({str(folder)!r})")
    return folder


@pytest.mark.parametrize(("parallel", "memory"), CASES)
def test_one_process_without_memory_changes_nothing(runs: Path, parallel: str, memory: str) -> None:
    one = load_folder(runs / "alone" / "checkpoints" / "last")
    two = load_folder(runs / f"{parallel}-{memory}" / "checkpoints" / "last")
    assert one.tensors.keys() == two.tensors.keys()
    for name, expected in one.tensors.items():
        assert float((two.tensors[name] - expected).abs().max()) < 1e-10, name
    assert two.documents["state.json"]["micro"] == 3 and one.documents["state.json"]["micro"] == 0


def test_where_others_wait_it_is_said_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block of FSDP2 that cannot run leaves the others waiting within theirs: nobody can be told."""
    monkeypatch.setattr(World, "largest", lambda self, number: number)
    step = gradcache.Gradients(Motet(MODEL), Objective(LOSS, MODEL), world=World(1, 2, "fsdp"))
    monkeypatch.setattr(step, "_run", fail)
    batch = next(iter(Slices(World()).batches(0)))
    with pytest.raises(MotetError, match=r"on process 1 .* --resume --set train.micro_batch=4"):
        step(batch, seed=0)
