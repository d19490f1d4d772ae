"""The gradients of one global batch, in pieces where it is larger than memory, over ranks where there are.

The losses read a few vectors a sample, so they are computed on all rows at once, whatever pieces
the model sees them in: first every piece runs without a graph, then the loss gives each row's
gradient, then every piece runs again, with the same random numbers, and carries its rows' gradients
on. Contrastive pairs, class weights and masked means are thus those of the whole batch.

Source: Gao et al. 2021, arXiv:2101.06983.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from motet.errors import MotetError
from motet.train.distributed import World
from motet.types import Output, TokenBatch

Rows = dict[tuple[str, ...], Tensor]
_SEEDS = 0x7FFF_FFFF_FFFF_FFFF
_STRIDE = 0x1E37_79B9_7F4A_7C15  # odd and large: the seeds of pieces and ranks lie far apart


class Gradients:
    """Puts the gradients of a batch's loss into the parameters; returns the loss and its parts.

    `size`: how many samples the model sees at once, 0 for all. Where memory runs out it is halved,
    for good, and the batch is done again; `say` is told. The gradients stay the same up to rounding,
    with dropout up to other random numbers.

    Raises:
        MotetError: no memory for a single sample, or none on one of several ranks.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: nn.Module,
        *,
        size: int = 0,
        precision: torch.dtype = torch.float32,
        world: World | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        self.objective, self.size, self.precision, self.say = objective, size, precision, say
        self.world = world or World()
        self.model, self.scale = model, 1.0
        self.rows = self.world.wrap(LossRows(model))
        self.parameters = [*model.parameters(), *objective.parameters()]
        self.device = self.parameters[0].device

    def __call__(
        self, batch: TokenBatch, seed: int, *, scale: float = 1.0
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """`seed` sets all of the step's random numbers. Gradients that were there are thrown away.

        The gradients are those of `scale` times the loss, so that small ones survive half precision.
        """
        self.scale = scale
        while True:
            try:
                return self._gradients(batch, seed)
            except torch.OutOfMemoryError as error:
                size = min(self.size or len(batch.ids), len(batch.ids))
                if size == 1 or self.world.size > 1:
                    raise MotetError(
                        f"Out of memory with {size} samples at once: {error}. "
                        f"Try --set train.micro_batch={max(1, size // 2)}, or a smaller model."
                    ) from None
                self.size = -(-size // 2)
            # Here, not above: the error's traceback would keep the tensors of the failed try alive.
            self._clear()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            self.say(f"out of memory: from now on {self.size} samples at once; the batch stays whole")

    def _gradients(self, batch: TokenBatch, seed: int) -> tuple[Tensor, dict[str, Tensor]]:
        self._clear()
        pieces = 1 if self.size == 0 else max(1, -(-len(batch.ids) // self.size))
        pieces = self.world.largest(pieces)  # every rank calls the model equally often
        if pieces == 1 and self.world.size == 1:
            return self._plain(batch.to(self.device), seed)
        parts = [part.to(self.device) for part in split(batch, pieces)]
        whole = batch.to(self.device)
        kept = None
        if pieces == 1:
            kept = self._run(whole, seed, 0)
            cached = {name: rows.detach().requires_grad_() for name, rows in kept.items()}
        else:
            with torch.no_grad():
                seen = [self._run(part, seed, i) for i, part in enumerate(parts)]
            cached = {name: torch.cat([rows[name] for rows in seen]).requires_grad_() for name in seen[0]}
        loss, said = self._loss(cached, whole)
        if loss.requires_grad:
            (loss * self.scale).backward()
        start = 0
        for i, part in enumerate(parts):
            stop, last = start + len(part.ids), i == len(parts) - 1
            with nullcontext() if last else self.world.unsynchronised(self.rows):
                rows = self._run(part, seed, i) if kept is None else kept
                self._carry_on(rows, {name: self._gradient(c)[start:stop] for name, c in cached.items()})
            start = stop
        return loss.detach(), said

    def _plain(self, batch: TokenBatch, seed: int) -> tuple[Tensor, dict[str, Tensor]]:
        torch.manual_seed(seed)
        with self._autocast():
            loss, said = self.objective(self.model(batch), batch)
        if loss.requires_grad:
            (loss * self.scale if self.scale != 1 else loss).backward()
        return loss.detach(), said

    def _run(self, part: TokenBatch, seed: int, index: int) -> Rows:
        torch.manual_seed((seed + _STRIDE * (index + (self.world.rank << 20))) & _SEEDS)
        with self._autocast():
            return self.rows(part)

    def _loss(self, cached: Rows, batch: TokenBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of the rows of all ranks; the gradient reaches this rank's."""
        gather = self.world.gather
        present = gather(batch.layout.present())
        rows = {name: gather(value) for name, value in cached.items()}
        if self.world.size > 1:
            batch = self.world.gather_targets(batch)
        with self._autocast():
            return self.objective(_output(rows, present), batch)

    def _gradient(self, cached: Tensor) -> Tensor:
        grad = torch.zeros_like(cached) if cached.grad is None else cached.grad
        return grad * self.world.size  # the wrappers average over ranks, the loss is a whole

    def _carry_on(self, rows: Rows, gradients: Rows) -> None:
        names = [name for name, value in rows.items() if value.requires_grad]
        if names:
            torch.autograd.backward([rows[n] for n in names], [gradients[n] for n in names])

    def _autocast(self) -> torch.autocast:
        return torch.autocast(
            self.device.type, self.precision, enabled=self.precision in (torch.bfloat16, torch.float16)
        )

    def _clear(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None


class LossRows(nn.Module):
    """What the losses read of a model's output, one row a sample, by name."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: TokenBatch) -> Rows:
        output: Output = self.model(batch)
        rows: Rows = {("embedding", m): v for m, v in output.embeddings.items()}
        rows |= {("prediction", t): v for t, v in output.predictions.items()}
        rows |= {("guess", m): v for m, v in output.guesses.items()}
        for m, predictions in output.modality_predictions.items():
            rows |= {("late", m, t): v for t, v in predictions.items()}
        return rows


def _output(rows: Rows, present: Tensor) -> Output:
    """The inverse of `LossRows`; there are no token states."""
    late: dict[str, dict[str, Tensor]] = {}
    for kind, name, *task in rows:
        if kind == "late":
            late.setdefault(name, {})[task[0]] = rows[kind, name, task[0]]
    none = present.new_zeros((len(present), 0), dtype=torch.float32)
    return Output(
        tokens=none,
        fused=none,
        present=present,
        embeddings=_named(rows, "embedding"),
        predictions=_named(rows, "prediction"),
        modality_predictions=late,
        guesses=_named(rows, "guess"),
    )


def _named(rows: Rows, kind: str) -> dict[str, Tensor]:
    return {name[1]: value for name, value in rows.items() if name[0] == kind}


def split(batch: TokenBatch, pieces: int) -> Sequence[TokenBatch]:
    """The samples in order, in `pieces` batches of sizes as equal as can be."""
    if pieces == 1:
        return [batch]
    bounds = [round(len(batch.ids) * i / pieces) for i in range(pieces + 1)]
    return [batch.rows(start, stop) for start, stop in itertools.pairwise(bounds)]
