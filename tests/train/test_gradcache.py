"""Gradients of a batch in pieces equal those of the whole; memory that runs out halves the pieces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from motet.errors import MotetError
from motet.losses import LossConfig, Objective
from motet.model import Motet, MotetConfig, TaskSpec
from motet.train.gradcache import Gradients, split
from motet.types import TokenBatch
from tests.train.training_fakes import CONFIG, make_batch

RICH = replace(
    CONFIG,
    mot=replace(CONFIG.mot, block=replace(CONFIG.mot.block, dropout=0.0)),
    embed=replace(CONFIG.embed, dropout=0.0),
    head_dropout=0.0,
    late_heads=True,
    tasks=(TaskSpec("mood", "classes", ("bad", "good")), TaskSpec("price", "number", mean=2.0, std=3.0)),
)
LOSS = LossConfig(class_weights={"mood": (0.3, 2.0)}, focal=1.0)


def batch_of(samples: int, dtype: torch.dtype = torch.float64) -> TokenBatch:
    made = make_batch(3, samples)
    mood = made.targets["mood"].clone()
    mood[::3] = -100
    price = torch.arange(samples).to(dtype)
    price[1] = float("nan")
    return replace(
        made,
        values={"text": made.values["text"], "sound": made.values["sound"].to(dtype)},
        targets={"mood": mood, "price": price},
        group=torch.arange(samples) // 2,
        weight=torch.rand(samples, generator=torch.Generator().manual_seed(0)),
    )


def gradients_of(
    batch: TokenBatch, size: int, config: MotetConfig = RICH, loss: LossConfig = LOSS
) -> tuple[float, dict[str, Tensor], Gradients]:
    torch.manual_seed(0)
    model, objective = Motet(config).double(), Objective(loss, config).double()
    step = Gradients(model, objective, size=size, say=lambda line: None)
    value, _ = step(batch, seed=7)
    found = {
        f"{part}.{name}": p.grad
        for part, module in (("model", model), ("objective", objective))
        for name, p in module.named_parameters()
        if p.grad is not None
    }
    return float(value), found, step


@pytest.mark.parametrize("size", [1, 3, 4, 11])
@pytest.mark.parametrize("contrastive", ["infonce", "sigmoid"])
def test_pieces_give_the_gradients_of_the_whole(size: int, contrastive: str) -> None:
    batch, loss = batch_of(12), replace(LOSS, contrastive=contrastive, balance="uncertainty")
    value, whole, _ = gradients_of(batch, 0, loss=loss)
    again, pieces, _ = gradients_of(batch, size, loss=loss)
    assert again == pytest.approx(value, abs=1e-12)
    assert pieces.keys() == whole.keys() and "objective.log_temperature" in whole
    for name, expected in whole.items():
        assert float((pieces[name] - expected).abs().max()) < 1e-10, name
    assert any(float(g.abs().max()) > 1e-3 for g in whole.values())


def test_in_single_precision_to_1e_6() -> None:
    batch = batch_of(12, torch.float32)
    found = []
    for size in (0, 5):
        torch.manual_seed(0)
        model, objective = Motet(RICH), Objective(LOSS, RICH)
        Gradients(model, objective, size=size)(batch, seed=7)
        found.append([p.grad for p in model.parameters() if p.grad is not None])
    largest = max(float(a.abs().max()) for a in found[0])  # sums in another order: rounding of the largest
    for a, b in zip(*found, strict=True):
        assert float((a - b).abs().max()) < 1e-6 * largest


def test_a_plain_sum_over_pieces_would_be_wrong() -> None:
    """What gradient caching is for: accumulating each piece's own loss gives something else."""
    batch = batch_of(12)
    _, whole, _ = gradients_of(batch, 0)
    torch.manual_seed(0)
    model, objective = Motet(RICH).double(), Objective(LOSS, RICH).double()
    for part in split(batch, 3):
        (objective(model(part), part)[0] / 3).backward()
    naive = {f"model.{name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert max(float((naive[n] - g).abs().max()) for n, g in whole.items() if n in naive) > 1e-3


def test_dropout_is_replayed_exactly() -> None:
    """Against the same loss with a graph over all pieces at once, each drawn with its piece's seed."""
    config = replace(CONFIG, mot=replace(CONFIG.mot, block=replace(CONFIG.mot.block, dropout=0.4)))
    batch = batch_of(9)
    batch = replace(batch, targets={"mood": batch.targets["mood"]})
    value, found, step = gradients_of(batch, 3, config=config)
    step._clear()
    rows = [step._run(part, 7, i) for i, part in enumerate(split(batch, 3))]
    joined = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
    loss, _ = step._loss(*step._gathered(joined, batch))
    assert float(loss) == value
    for name, p in step.model.named_parameters():
        if p.grad is not None:
            assert float((p.grad - found[f"model.{name}"]).abs().max()) < 1e-12
    other = step._run(split(batch, 3)[0], 8, 0)
    assert any(bool((other[name] != value).any()) for name, value in rows[0].items())


class Hungry(nn.Module):
    """Runs out of memory with more than `limit` samples; in the backward, if asked."""

    def __init__(self, model: Motet, limit: int, *, backward: bool) -> None:
        super().__init__()
        self.model, self.limit, self.backward = model, limit, backward

    def forward(self, batch: TokenBatch) -> object:
        output = self.model(batch)
        if len(batch.ids) > self.limit:
            if not self.backward or not torch.is_grad_enabled():
                raise torch.OutOfMemoryError("CUDA out of memory")
            output.embeddings["text"].register_hook(self._fail)
        return output

    def _fail(self, gradient: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize("backward", [False, True])
def test_out_of_memory_halves_the_pieces_and_keeps_the_result(backward: bool) -> None:
    batch, said = batch_of(12), []
    _, whole, _ = gradients_of(batch, 0)
    torch.manual_seed(0)
    model, objective = Motet(RICH).double(), Objective(LOSS, RICH).double()
    step = Gradients(Hungry(model, 4, backward=backward), objective, say=said.append)
    step(batch, seed=7)
    assert step.size == 3 and len(said) == 2 and "3 samples" in said[1]
    for name, p in model.named_parameters():
        if p.grad is not None:
            assert float((p.grad - whole[f"model.{name}"]).abs().max()) < 1e-10
    step(batch, seed=8)
    assert len(said) == 2  # it stays with what fits


def test_no_memory_for_one_sample_is_said() -> None:
    torch.manual_seed(0)
    model, objective = Motet(CONFIG), Objective(LossConfig(), CONFIG)
    step = Gradients(Hungry(model, 0, backward=False), objective, say=lambda line: None)
    with pytest.raises(MotetError, match=r"Out of memory with 1 samples"):
        step(make_batch(0, 4), seed=0)


@pytest.mark.parametrize("pieces", [1, 2, 5, 8])
def test_rows_of_a_batch_are_the_batch_of_the_rows(pieces: int) -> None:
    batch = batch_of(8)
    parts = split(batch, pieces)
    assert [name for part in parts for name in part.ids] == list(batch.ids)
    present = torch.cat([part.layout.present() for part in parts])
    assert torch.equal(present, batch.layout.present())
    for m in ("text", "sound"):
        assert torch.equal(torch.cat([part.values[m] for part in parts]), batch.values[m])
        times = [part.layout.time[part.layout.slice_of(m)] for part in parts]
        assert torch.equal(torch.cat(times), batch.layout.time[batch.layout.slice_of(m)])
    for part in parts:
        assert part.layout.counts == tuple(len(part.values[m]) for m in ("text", "sound"))
        assert part.layout.offsets.tolist()[-1] == part.layout.tokens


def test_model_sees_each_sample_alike_in_any_piece() -> None:
    batch, forward = batch_of(8), _eval()
    whole = forward(batch)
    parts = torch.cat([forward(part) for part in split(batch, 3)])
    assert float((whole - parts).abs().max()) < 1e-12


def _eval() -> Callable[[TokenBatch], Tensor]:
    torch.manual_seed(0)
    model = Motet(RICH).double().eval()
    return lambda batch: model(batch).predictions["mood"].detach()
