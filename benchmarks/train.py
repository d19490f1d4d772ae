"""Samples a second of the whole training loop, beside the bare step of the model and beside two trainers.

    python benchmarks/train.py [--rounds 5] [--steps 24] [--workers 0] [--set KEY=VALUE ...] [--out FOLDER]

The emoji data set (extra `demo`) with the defaults of `motet fit`, in four loops over the same model and
the same batches, in turn, so that a drifting machine hurts all alike:

- `bare`: forward, loss, backward and AdamW's step on batches that lie ready in memory, and nothing else;
- `motet`: `motet.train.loop.train`, which makes its batches, clips, averages weights, logs and checks;
- `lightning`: Lightning's Trainer, which clips; `transformers`: Hugging Face's Trainer, which clips.

The two trainers take their batches from Motet's loader and do less: no averaged weights, no row for every
part of the loss. Both are left out where they are not installed (`pip install lightning accelerate`).
Time runs from the end of step WARM to the end of the last, without validation and without the final save.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import itertools
import logging
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from common import report
from torch import nn

from motet.data.builtin.emoji import build_emoji
from motet.data.columns import infer_columns
from motet.data.loader import Loader
from motet.data.table import open_table
from motet.losses import Objective
from motet.model import Motet
from motet.train.distributed import World
from motet.train.loop import TrainConfig, train
from motet.train.prepare import prepare
from motet.train.run import Reporter, RunFolder
from motet.train.settings import read_settings
from motet.types import TokenBatch

WARM = 4  # steps before the clock runs


@dataclass
class Setup:
    """What every loop starts from; `fresh` gives a copy of the weights."""

    model: Motet
    objective: Objective
    loader: Loader
    config: TrainConfig
    steps: int
    folder: Path

    def fresh(self) -> tuple[Motet, Objective]:
        return copy.deepcopy(self.model).train(), copy.deepcopy(self.objective).train()

    def batches(self) -> Iterator[TokenBatch]:
        """As `train` sees them: epoch after epoch."""
        epochs = (self.loader.batches(epoch) for epoch in itertools.count())
        return itertools.islice(itertools.chain.from_iterable(epochs), self.steps)


class Clock:
    """Notes when each step ended, on the wall or in processor time of this process."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.ends: list[float] = []

    def __call__(self, *_: Any, **__: Any) -> bool:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(self.now())
        return False


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--rows", type=int, help="of the data set; default: all")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as for motet fit")
    parser.add_argument(
        "--cpu-time", action="store_true", help="processor time: for a machine that others use, too"
    )
    parser.add_argument("--out", help="a folder for the result")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("MOTET_CACHE", f"{folder}/cache")
        setup = make_setup(given, Path(folder))
        sizes = [len(batch.ids) for batch in setup.batches()]
        ready = list(setup.batches())
        loops: dict[str, Callable[[Setup, Clock], None]] = {
            "bare": lambda setup, clock: bare(setup, ready, clock),
            "motet": whole,
        }
        loops |= {"lightning": lightning} if importlib.util.find_spec("lightning") else {}
        loops |= {"transformers": transformers} if importlib.util.find_spec("accelerate") else {}
        speeds: dict[str, list[float]] = {name: [] for name in loops}
        for _ in range(given.rounds):
            for name, loop in loops.items():
                clock = Clock(time.process_time if given.cpu_time else time.perf_counter)
                loop(setup, clock)
                assert len(clock.ends) == setup.steps, f"{name}: {len(clock.ends)} steps"
                speeds[name].append(sum(sizes[WARM:]) / (clock.ends[-1] - clock.ends[WARM - 1]))
    median = {name: statistics.median(values) for name, values in speeds.items()}
    shares = {  # round by round, as the machine drifts
        name: statistics.median(a / b for a, b in zip(speeds["motet"], values, strict=True))
        for name, values in speeds.items()
        if name != "motet"
    }
    result = {
        "samples_per_second": {name: round(value, 1) for name, value in median.items()},
        "motet_over": {name: round(value, 3) for name, value in shares.items()},
        "rounds": {name: [round(value, 1) for value in values] for name, values in speeds.items()},
        "steps": setup.steps,
        "samples_a_step": round(statistics.fmean(sizes), 1),
        "tokens_a_sample": round(statistics.fmean(b.layout.tokens / len(b.ids) for b in ready), 1),
        "parameters": sum(p.numel() for p in setup.model.parameters()),
        "workers": given.workers,
        "clock": "processor time" if given.cpu_time else "wall",
        "settings": given.set,
    }
    report("train", "cuda" if torch.cuda.is_available() else "cpu", result, given.out)


def make_setup(given: argparse.Namespace, folder: Path) -> Setup:
    """The emoji, prepared as `motet fit --label sentiment --retrieval` does."""
    table = open_table(build_emoji(folder / "data", limit=given.rows))
    config = read_settings([*given.set, f"loader.workers={given.workers}"], "fast")
    columns = infer_columns(table, label="sentiment")
    data = prepare(
        table,
        None,
        columns,
        config,
        preset="fast",
        seed=0,
        retrieval=True,
        run=RunFolder(folder / "prepared", {}),
        reporter=Reporter(quiet=True),
        world=World(),
    )
    specs = tuple(processor.spec for processor in data.processors.values())
    model_config = config.model.build(specs, data.tasks(), contrastive=True)
    torch.manual_seed(0)
    model = Motet(model_config).to("cuda" if torch.cuda.is_available() else "cpu")
    objective = Objective(config.loss, model_config).to(next(model.parameters()).device)
    loader = data.loader(config, 0, World())
    epochs = -(-given.steps // loader.steps_per_epoch)
    chosen = replace(config.train, epochs=epochs)
    return Setup(model, objective, loader, chosen, epochs * loader.steps_per_epoch, folder)


def bare(setup: Setup, ready: list[TokenBatch], clock: Clock) -> None:
    model, objective = setup.fresh()
    parameters = [*model.parameters(), *objective.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=setup.config.lr, fused=True)
    for batch in ready:
        optimizer.zero_grad(set_to_none=True)
        moved = batch.to(parameters[0].device)
        loss, _ = objective(model(moved), moved)
        loss.backward()
        optimizer.step()
        clock()


def whole(setup: Setup, clock: Clock) -> None:
    model, objective = setup.fresh()
    with tempfile.TemporaryDirectory(dir=setup.folder) as folder:
        run = RunFolder(Path(folder) / "run", {})
        quiet = Reporter(quiet=True)
        train(model, objective, setup.loader, None, setup.config, run=run, stop=clock, reporter=quiet)


class Pair(nn.Module):
    """The model and its loss as one module, as the trainers want it."""

    def __init__(self, model: nn.Module, objective: nn.Module) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, batch: TokenBatch, size: Any = None) -> dict[str, Any]:
        batch = batch.to(next(self.parameters()).device)
        return {"loss": self.objective(self.model(batch), batch)[0]}


class Stream(torch.utils.data.IterableDataset[TokenBatch]):
    def __init__(self, setup: Setup) -> None:
        self.setup = setup

    def __iter__(self) -> Iterator[TokenBatch]:
        return self.setup.batches()


def lightning(setup: Setup, clock: Clock) -> None:
    import lightning as pl

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.pair = Pair(*setup.fresh())

        def training_step(self, batch: TokenBatch, _: int) -> Any:
            loss = self.pair(batch)["loss"]
            self.log("loss", loss, batch_size=len(batch.ids))
            return loss

        def transfer_batch_to_device(self, batch: TokenBatch, device: torch.device, _: int) -> TokenBatch:
            return batch.to(device)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=setup.config.lr, fused=True)

        def on_train_batch_end(self, *_: Any) -> None:
            clock()

    trainer = pl.Trainer(
        max_epochs=1,
        gradient_clip_val=setup.config.clip,
        log_every_n_steps=setup.config.log_steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=str(setup.folder),
    )
    trainer.fit(Module(), torch.utils.data.DataLoader(Stream(setup), batch_size=None))


def transformers(setup: Setup, clock: Clock) -> None:
    from transformers import Trainer, TrainerCallback, TrainingArguments

    class Noted(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock()

    pair = Pair(*setup.fresh())
    arguments = TrainingArguments(
        output_dir=str(setup.folder / "hf"),
        max_steps=setup.steps,
        per_device_train_batch_size=1,  # one of ours
        max_grad_norm=setup.config.clip,
        logging_steps=setup.config.log_steps,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        use_cpu=not torch.cuda.is_available(),
    )
    optimizer = torch.optim.AdamW(pair.parameters(), lr=setup.config.lr, fused=True)
    trainer = Trainer(
        model=pair,
        args=arguments,
        train_dataset=Stream(setup),
        data_collator=lambda items: {"size": torch.zeros(len(items[0].ids)), "batch": items[0]},
        optimizers=(optimizer, None),
        callbacks=[Noted()],
    )
    trainer.train()


if __name__ == "__main__":
    main()
