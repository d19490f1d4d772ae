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
from typing import TypeVar

import torch
from torch import Tensor, nn

from motet.errors import MotetError
from motet.train.distributed import World
from motet.types import Output, TokenBatch

T = TypeVar("T")
Rows = dict[tuple[str, ...], Tensor]
_SEEDS = 0x7FFF_FFFF_FFFF_FFFF
_STRIDE = 0x1E37_79B9_7F4A_7C15  # odd and large: the seeds of pieces and ranks lie far apart


class Gradients:
    """Puts the gradients of a batch's loss into the parameters; returns the loss and its parts.

    `size`: how many samples the model sees at once, 0 for all. Where memory runs out, on any rank, it is
    halved on all, for good, and the batch is done again; `say` is told. The gradients stay the same up
    to rounding, with dropout up to other random numbers.

    Ranks can agree on that only where none of them waits for another. With "ddp" this is so all through
    a batch with more tokens in a piece than any before: its gradients are averaged once all ranks have
    theirs, not while they are made. With "fsdp" every block waits, and only the loss between can run out.

    Raises:
        MotetError: no memory for a single sample, or none while other ranks wait.
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
        self.proven = 0  # tokens of a piece for which there was memory
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
                size = self.world.largest(self._at_once(batch))
                if size == 1:
                    raise MotetError(
                        f"Out of memory with 1 samples at once: {error}. Try a smaller model, or shorter "
                        "texts, sounds and videos."
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
        tokens = max(part.layout.tokens for part in parts)
        careful = self.world.any(tokens > self.proven)
        waits = self.world.waits
        kept = None
        if pieces == 1:
            with self.world.unsynchronised(self.rows) if careful else nullcontext():
                kept = self._agreed(lambda: self._run(whole, seed, 0), batch, waits=waits)
            cached = {name: rows.detach().requires_grad_() for name, rows in kept.items()}
        else:
            seen = self._agreed(lambda: self._seen(parts, seed), batch, waits=waits)
            cached = {name: torch.cat([rows[name] for rows in seen]).requires_grad_() for name in seen[0]}
        rows, whole, present = self._gathered(cached, whole)
        loss, said = self._agreed(lambda: self._loss(rows, whole, present), batch)
        self._agreed(
            lambda: self._carry_on(parts, cached, kept, seed, overlap=not careful),
            batch,
            waits=waits or not careful,
        )
        if careful:
            self.world.average(self.rows)
        self.proven = max(self.proven, tokens)
        return loss, said

    def _agreed(self, work: Callable[[], T], batch: TokenBatch, *, waits: bool = False) -> T:
        """What `work` gives. Without memory for it on some rank, the same error on all of them.

        waits: other ranks may be waiting for this one within it, so that they cannot be told.
        """
        lacking = ""
        try:
            found = work()
        except torch.OutOfMemoryError as error:
            lacking = f"{error}"
        if lacking and waits and self.world.size > 1:
            half = max(1, self._at_once(batch) // 2)
            raise MotetError(
                f"Out of memory on process {self.world.rank} while others waited for it: {lacking}. Go on "
                f"with half as many samples at once: the same command with --resume --set "
                f"train.micro_batch={half}."
            )
        if lacking if waits else self.world.any(bool(lacking)):
            raise torch.OutOfMemoryError(lacking or "on another process")
        return found

    def _at_once(self, batch: TokenBatch) -> int:
        return min(self.size or len(batch.ids), len(batch.ids))

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

    @torch.no_grad()
    def _seen(self, parts: Sequence[TokenBatch], seed: int) -> list[Rows]:
        return [self._run(part, seed, i) for i, part in enumerate(parts)]

    def _gathered(self, cached: Rows, batch: TokenBatch) -> tuple[Rows, TokenBatch, Tensor]:
        """The rows, targets and present modalities of all ranks; the gradient reaches this rank's."""
        present = self.world.gather(batch.layout.present())
        rows = {name: self.world.gather(value) for name, value in cached.items()}
        return rows, self.world.gather_targets(batch) if self.world.size > 1 else batch, present

    def _loss(self, rows: Rows, batch: TokenBatch, present: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of all rows, whose gradient is then theirs."""
        with self._autocast():
            loss, said = self.objective(_output(rows, present), batch)
        if loss.requires_grad:
            (loss * self.scale).backward()
        return loss.detach(), said

    def _carry_on(
        self, parts: Sequence[TokenBatch], cached: Rows, kept: Rows | None, seed: int, *, overlap: bool
    ) -> None:
        """The rows' gradients into the parameters, piece by piece; with `overlap` averaged on the way."""
        start = 0
        for i, part in enumerate(parts):
            stop, last = start + len(part.ids), i == len(parts) - 1
            with nullcontext() if last and overlap else self.world.unsynchronised(self.rows):
                rows = self._run(part, seed, i) if kept is None else kept
                names = [name for name, value in rows.items() if value.requires_grad]
                given = [self._gradient(cached[name])[start:stop] for name in names]
                if names:
                    torch.autograd.backward([rows[name] for name in names], given)
            start = stop

    def _gradient(self, cached: Tensor) -> Tensor:
        grad = torch.zeros_like(cached) if cached.grad is None else cached.grad
        return grad * self.world.size  # the wrappers average over ranks, the loss is a whole

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
