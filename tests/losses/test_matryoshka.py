"""The contrastive loss over first dimensions, and what training with it is good for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from motet.errors import ConfigError
from motet.losses import LossConfig, Objective, contrastive_loss
from motet.model import MotetConfig
from motet.predictor.vectors import smaller
from motet.types import Layout, ModalitySpec, Output, TokenBatch

NAMES = ("a", "b")
WIDTH = 32


def objective(width: int = WIDTH, **said: object) -> Objective:
    specs = tuple(ModalitySpec(name, "features", "vectors", 4) for name in NAMES)
    return Objective(LossConfig(**said), MotetConfig(specs, embedding=width))  # type: ignore[arg-type]


def loss_of(objective: Objective, a: Tensor, b: Tensor) -> Tensor:
    rows = len(a)
    modality = torch.arange(2).repeat_interleave(rows)
    layout, _ = Layout.build(NAMES, modality, torch.arange(rows).repeat(2))
    batch = TokenBatch(layout, {}, {}, torch.arange(rows), tuple(map(str, range(rows))))
    empty = torch.zeros(rows, 0)
    present = torch.ones(rows, 2, dtype=torch.bool)
    return objective(Output(empty, empty, present, {"a": a, "b": b}, {}), batch)[0]


def unit(rows: int, seed: int) -> Tensor:
    return normalize(torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_the_loss_is_the_mean_over_the_prefixes() -> None:
    a, b = unit(9, 0), unit(9, 1)
    found = float(loss_of(objective(matryoshka=(4, 16)), a, b))
    each = [
        contrastive_loss(normalize(a[:, :d], dim=1), normalize(b[:, :d], dim=1), 0.07) for d in (4, 16, 32)
    ]
    assert found == pytest.approx(float(sum(each)) / 3, rel=1e-5)
    assert float(loss_of(objective(), a, b)) == pytest.approx(float(each[2]), rel=1e-6)
    sigmoid = {"contrastive": "sigmoid", "temperature": 0.1}
    assert float(loss_of(objective(matryoshka=(4,), **sigmoid), a, b)) != float(
        loss_of(objective(**sigmoid), a, b)
    )


@pytest.mark.parametrize("dims", [(0,), (32,), (4, 4)])
def test_prefixes_that_are_none_are_refused(dims: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"loss\.matryoshka.*embedding=32"):
        objective(matryoshka=dims)


def recall_of_prefixes(matryoshka: tuple[int, ...], seed: int) -> dict[int, float]:
    """R@1 on new rows of two linear encoders trained on two views of one latent state."""
    draw = torch.Generator().manual_seed(seed)
    views = [torch.randn(12, 40, generator=draw) for _ in NAMES]

    def rows(count: int) -> list[Tensor]:
        state = torch.randn(count, 12, generator=draw)
        return [state @ view + 0.5 * torch.randn(count, 40, generator=draw) for view in views]

    train, test = rows(256), rows(200)
    torch.manual_seed(seed)
    heads = nn.ModuleList(nn.Linear(40, WIDTH) for _ in NAMES)
    loss = objective(matryoshka=matryoshka)
    step = torch.optim.Adam([*heads.parameters(), *loss.parameters()], lr=0.01)
    for _ in range(120):
        step.zero_grad()
        loss_of(loss, *(normalize(h(x), dim=1) for h, x in zip(heads, train, strict=True))).backward()
        step.step()
    with torch.no_grad():
        a, b = (normalize(h(x), dim=1).numpy() for h, x in zip(heads, test, strict=True))
    found = {}
    for dims in (4, 8, WIDTH):
        cosines = smaller(a, dims=dims) @ smaller(b, dims=dims).T
        found[dims] = float((cosines.argmax(1) == np.arange(len(a))).mean())
    return found


def test_first_dimensions_find_more_where_they_were_trained_to() -> None:
    plain, nested = recall_of_prefixes((), 0), recall_of_prefixes((4, 8), 0)
    assert nested[4] > plain[4] + 0.1 and nested[8] > plain[8]
    assert nested[WIDTH] > plain[WIDTH] - 0.05
