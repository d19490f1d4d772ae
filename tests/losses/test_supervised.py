"""Supervised losses against naive loops in fp64."""

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from motet.losses import classification_loss, contrastive_loss, guess_loss, multilabel_loss, regression_loss
from motet.losses import sigmoid_loss as sigmoid_pairs
from motet.nn.heads import OrdinalHead

TARGET = [0, -100, 2, 1, 2]
WEIGHTS = [0.5, 2.0, 1.5]
ROWS = [1.0, 3.0, 0.0, 0.25, 2.0]  # how much each sample counts


def logits(rows: int = 5, classes: int = 3, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(rows, classes, generator=draw, dtype=torch.float64)


def naive_classes(
    rows: list[list[float]], smoothing: float, focal: float, weights: list[float], counts: list[float]
) -> float:
    total = share = 0.0
    for row, y, count in zip(rows, TARGET, counts, strict=True):
        if y == -100:
            continue
        log_all = math.log(sum(math.exp(v) for v in row))
        loss = 0.0
        for c, value in enumerate(row):
            wanted = (1 - smoothing) * (c == y) + smoothing / len(row)
            loss += wanted * weights[c] * (log_all - value)
        loss *= (1 - math.exp(row[y] - log_all)) ** focal
        total += count * loss
        share += count * weights[y]
    return total / share


@pytest.mark.parametrize("focal", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [[1.0] * 3, WEIGHTS])
@pytest.mark.parametrize("counts", [[1.0] * 5, ROWS])
def test_classes_focal_smoothed_and_weighted(
    focal: float, smoothing: float, weights: list[float], counts: list[float]
) -> None:
    x = logits().requires_grad_()
    value = classification_loss(
        x,
        torch.tensor(TARGET),
        class_weights=torch.tensor(weights),
        label_smoothing=smoothing,
        focal=focal,
        weight=torch.tensor(counts),
    )
    expected = naive_classes(x.tolist(), smoothing, focal, weights, counts)
    assert float(value.detach()) == pytest.approx(expected, abs=1e-12)
    value.backward()
    assert x.grad is not None and bool((x.grad[1] == 0).all())


def test_focal_takes_weight_from_what_is_easy() -> None:
    x = torch.tensor([[8.0, 0.0], [0.0, 0.5]], dtype=torch.float64, requires_grad=True)
    grads = []
    for focal in (0.0, 2.0):
        (grad,) = torch.autograd.grad(classification_loss(x, torch.tensor([0, 0]), focal=focal), x)
        grads.append(grad.abs().sum(1))
    assert grads[1][0] / grads[1][1] < 1e-3 * grads[0][0] / grads[0][1]
    sure = torch.tensor([[200.0, 0.0]], requires_grad=True)  # p is 1 in float32
    classification_loss(sure, torch.tensor([0]), focal=0.5).backward()
    assert sure.grad is not None and bool(sure.grad.isfinite().all())


@pytest.mark.parametrize("focal", [0.0, 2.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("counts", [None, ROWS])
def test_several_labels_at_once(focal: float, smoothing: float, counts: list[float] | None) -> None:
    x = logits().requires_grad_()
    target = torch.tensor([[1, 0, 1], [math.nan] * 3, [0, 0, 0], [1, math.nan, 1], [0, 1, 0]])
    weight = None if counts is None else torch.tensor(counts)
    value = multilabel_loss(
        x,
        target,
        class_weights=torch.tensor(WEIGHTS),
        label_smoothing=smoothing,
        focal=focal,
        weight=weight,
    )
    total = share = 0.0
    for b, row in enumerate(x.tolist()):
        for c, z in enumerate(row):
            y = float(target[b, c])
            if math.isnan(y):
                continue
            count = 1.0 if counts is None else counts[b]
            p = 1 / (1 + math.exp(-z))
            soft = y * (1 - smoothing) + smoothing / 2
            loss = -WEIGHTS[c] * soft * math.log(p) - (1 - soft) * math.log(1 - p)
            total += count * loss * (1 - (p if y else 1 - p)) ** focal
            share += count
    assert float(value.detach()) == pytest.approx(total / share, abs=1e-12)
    value.backward()
    assert x.grad is not None and bool((x.grad[target.isnan()] == 0).all())


@pytest.mark.parametrize("kind", ["mse", "l1", "huber"])
def test_numbers_weighted_by_sample(kind: str) -> None:
    x, target = logits()[:, 0], torch.tensor([0.5, math.nan, 9.0, -1.0, 0.0])
    value = regression_loss(x, target, kind=kind, delta=0.5, weight=torch.tensor(ROWS))  # type: ignore[arg-type]
    total = share = 0.0
    for p, t, count in zip(x.tolist(), target.tolist(), ROWS, strict=True):
        if not math.isnan(t):
            e = abs(p - t)
            huber = 0.5 * e * e if e < 0.5 else 0.5 * (e - 0.25)
            total += count * {"mse": e * e, "l1": e, "huber": huber}[kind]
            share += count
    assert float(value) == pytest.approx(total / share, abs=1e-12)


def test_hidden_features_are_guessed_by_direction() -> None:
    guess, target = logits(4, 6), logits(4, 6, seed=1)
    target[1] = math.nan
    total = 0.0
    for b in (0, 2, 3):
        g, t = guess[b].tolist(), target[b].tolist()
        dot = sum(i * j for i, j in zip(g, t, strict=True))
        total += 1 - dot / math.sqrt(sum(i * i for i in g) * sum(j * j for j in t))
    guess.requires_grad_()
    value = guess_loss(guess, target)
    assert float(value.detach()) == pytest.approx(total / 3, abs=1e-12)
    value.backward()
    assert guess.grad is not None and bool((guess.grad[1] == 0).all())


@pytest.mark.parametrize("loss", ["classes", "labels", "numbers", "hidden"])
def test_nothing_known_gives_zero_and_zero_gradients(loss: str) -> None:
    x = logits().requires_grad_()
    nothing, rows = torch.full((5, 3), math.nan), torch.tensor(ROWS)
    value = {
        "classes": lambda: classification_loss(x, torch.full((5,), -100), focal=2.0, weight=rows),
        "labels": lambda: multilabel_loss(x, nothing, focal=2.0, weight=rows),
        "numbers": lambda: regression_loss(x[:, 0], nothing[:, 0], weight=rows),
        "hidden": lambda: guess_loss(x, nothing, weight=rows),
    }[loss]()
    value.backward()
    assert float(value.detach()) == 0.0
    assert x.grad is not None and bool((x.grad == 0).all())


@pytest.mark.parametrize("kind", ["infonce", "sigmoid"])
def test_contrast_weighted_by_sample_equals_a_naive_loop(kind: str) -> None:
    a, b = (F.normalize(logits(5, 4, seed=s), dim=1) for s in (0, 1))
    both = [True, True, False, True, True]
    counts, rows = [1.0, 0.0, 5.0, 2.0, 0.5], [0, 1, 3, 4]
    if kind == "infonce":
        value = contrastive_loss(a, b, 0.2, both=torch.tensor(both), weight=torch.tensor(counts))
    else:
        value = sigmoid_pairs(a, b, 0.2, -1.0, both=torch.tensor(both), weight=torch.tensor(counts))
    total = 0.0
    for x, y in ((a, b), (b, a)):
        for i in rows:
            scores = {j: float(x[i] @ y[j]) / 0.2 for j in rows}
            if kind == "infonce":
                loss = math.log(sum(map(math.exp, scores.values()))) - scores[i]
            else:
                signed = [(1 if i == j else -1) * (s - 1.0) for j, s in scores.items()]
                loss = sum(math.log1p(math.exp(-z)) for z in signed)
            total += counts[i] * loss
    assert float(value) == pytest.approx(total / (2 * sum(counts[i] for i in rows)), abs=1e-12)


def test_ordinal_head_is_the_proportional_odds_model() -> None:
    torch.manual_seed(0)
    head = OrdinalHead(6, 5, dropout=0.0).double()
    with torch.no_grad():
        head.gaps.add_(torch.randn(3))
    x = logits(7, 6)
    out = head(x)
    number = head.out(head.norm(x))[:, 0].tolist()
    rising = head.first.tolist()
    for gap in head.gaps.tolist():
        rising.append(rising[-1] + math.log1p(math.exp(gap)))
    for row, f in zip(out.tolist(), number, strict=True):
        below = [0.0, *(1 / (1 + math.exp(f - t)) for t in rising), 1.0]
        shares = [high - low for low, high in itertools.pairwise(below)]
        assert row == pytest.approx([math.log(p) for p in shares], abs=1e-10)


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_ordinal_head_starts_even_and_holds_far_out(classes: int) -> None:
    head = OrdinalHead(4, classes)
    torch.nn.init.zeros_(head.out.weight)
    assert head(torch.randn(1, 4)).exp()[0].tolist() == pytest.approx([1 / classes] * classes, abs=1e-6)
    torch.nn.init.constant_(head.out.weight, 1e3)
    out = head(torch.eye(4))
    F.cross_entropy(out, torch.tensor([0, classes - 1, 1, 0])).backward()
    assert bool(out.isfinite().all())
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in head.parameters())


def test_an_ordinal_head_learns_an_order() -> None:
    torch.manual_seed(0)
    head = OrdinalHead(3, 4, dropout=0.0)
    x = torch.randn(200, 3)
    x = (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True)
    target = torch.bucketize(x[:, 0].contiguous(), torch.tensor([-0.6, 0.0, 0.6]))
    optimizer = torch.optim.Adam(head.parameters(), lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        classification_loss(head(x), target).backward()
        optimizer.step()
    assert float((head(x).argmax(1) == target).float().mean()) > 0.9
