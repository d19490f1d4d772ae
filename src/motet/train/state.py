"""Where a run stands, saved and put back: whole tensors in one folder, however many processes train."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor, nn

from motet.checkpoint import load_folder, load_state, save_folder
from motet.train import optim
from motet.train.average import WeightAverage
from motet.train.distributed import World, like, whole
from motet.train.run import RunFolder


@dataclass(frozen=True)
class Best:
    """What the run ends with: the model holds the weights of `step`."""

    step: int
    steps: int
    epochs: int
    value: float | None
    metric: str
    why: str


@dataclass
class State:
    """`stale` counts epochs since the best, `lines` those logged; `micro` is the micro-batch that fits.

    `scale` multiplies the loss in fp16, unchanged for `steady` steps. `level` is what `Guard` knows.
    """

    step: int = 0
    epoch: int = 0
    position: int = 0
    bad: int = 0
    stale: int = 0
    lines: int = 0
    micro: int = 0
    best: float | None = None
    best_step: int = 0
    scale: float = 0.0
    steady: int = 0
    level: dict[str, float] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)


@dataclass
class Checkpoints:
    """Saves and restores everything that a run is. Every rank calls these; rank 0 writes.

    `best`: the best weights so far, on the CPU; `best_saved`: whether they are on disk.
    """

    run: RunFolder
    world: World
    model: nn.Module
    objective: nn.Module
    optimizers: optim.Optimizers
    average: WeightAverage
    best: dict[str, Tensor] = field(default_factory=dict)
    best_saved: bool = True

    def keep_best(self) -> bool:
        """Take the model's weights of now as the best; False, and nothing, where one is not finite."""
        now = self._gathered(self.model.state_dict())
        if not all(bool(torch.isfinite(v).all()) for v in now.values() if v.is_floating_point()):
            return False
        self.best, self.best_saved = now, False
        return True

    def use_best(self) -> None:
        """Put the best weights into the model."""
        if self.best:
            load_state(self.model, self._placed(self.best, self.model.state_dict()), where=self.run.best)

    def save(self, state: State) -> None:
        """Best first: what the saved state calls best is then never older than what lies there."""
        state.lines = self.run.lines
        parts: dict[str, Mapping[str, Tensor]] = {
            "model": self.model.state_dict(),
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizers.tensors(),
            "average": self.average.tensors,
        }
        tensors = {
            f"{part}/{k}": v for part, inside in parts.items() for k, v in self._gathered(inside).items()
        }
        if self.world.main:
            if not self.best_saved:
                save_folder(self.run.best, tensors=self.best, documents={"state.json": asdict(state)})
            self.run.keep_previous()
            save_folder(self.run.last, tensors=tensors, documents={"state.json": asdict(state)})
        self.best_saved = True

    def restore(self, say: Callable[[str], None]) -> State:
        """The newest whole checkpoint, put into everything; a fresh state where there is none."""
        with self.world.main_first():
            folder = self.run.newest(say)
        if folder is None:
            self._truncate(0)
            return State()

        def part(name: str) -> dict[str, Tensor]:
            return {k.split("/", 1)[1]: v for k, v in folder.tensors.items() if k.startswith(name + "/")}

        model = self._placed(part("model"), self.model.state_dict())
        load_state(self.model, model, where=folder.path)
        load_state(self.objective, part("objective"), where=folder.path)
        self.optimizers.load(part("optimizer"))
        self.average.load(self._placed(part("average"), self.average.tensors))
        state = State(**folder.documents["state.json"])
        self._truncate(state.lines)
        if state.best_step:
            self.best = dict(load_folder(self.run.best).tensors)
        return state

    def _gathered(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {k: whole(v.detach()).cpu().clone() for k, v in tensors.items()}

    def _placed(self, tensors: Mapping[str, Tensor], held: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {k: like(v, held[k]) if k in held else v for k, v in tensors.items()}

    def _truncate(self, lines: int) -> None:
        if self.world.main:
            self.run.truncate(lines)
        else:
            self.run.lines = lines
