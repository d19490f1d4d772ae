import pytest
import torch

from motet.nn.heads import EmbeddingHead, SequencePool, TaskHead

SAMPLE = torch.tensor([0, 0, 0, 2, 2, 3])


@pytest.mark.parametrize("kind", ["attention", "mean"])
def test_pooling_starts_as_the_mean_and_absent_samples_are_zero(kind: str) -> None:
    x = torch.randn(6, 8)
    pool = SequencePool(8, heads=2, kind=kind)  # type: ignore[arg-type]
    out = pool(x, SAMPLE, 5)
    normed = pool.norm(x)
    assert torch.allclose(out[0], normed[:3].mean(0), atol=1e-6) and torch.allclose(
        out[3], normed[5], atol=1e-6
    )
    assert bool((out[[1, 4]] == 0).all())


def test_attention_pooling_equals_a_loop() -> None:
    pool = SequencePool(8, heads=2).double()
    torch.nn.init.normal_(pool.score.weight)
    x = torch.randn(6, 8, dtype=torch.float64)
    out, y = pool(x, SAMPLE, 4), pool.norm(x)
    for b in (0, 2, 3):
        rows = y[b == SAMPLE]
        for head in range(2):
            share = (rows @ pool.score.weight[head]).softmax(0)
            expected = share @ rows[:, 4 * head : 4 * head + 4]
            assert torch.allclose(out[b, 4 * head : 4 * head + 4], expected, atol=1e-12)


@pytest.mark.parametrize("direct", [None, 5])
def test_embeddings_have_unit_length_or_are_zero_with_finite_gradients(direct: int | None) -> None:
    head = EmbeddingHead(8, 4, direct=direct).eval()
    pooled = torch.randn(3, 8)
    pooled[1] = 0
    features = None if direct is None else torch.zeros(3, direct)
    out = head(pooled, features, torch.tensor([True, False, True]))
    assert torch.allclose(out.norm(dim=1), torch.tensor([1.0, 0.0, 1.0]), atol=1e-6)
    out.sum().backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in head.parameters())


def test_the_direct_way_leads_at_first() -> None:
    torch.manual_seed(0)
    head = EmbeddingHead(8, 16, direct=8).eval()
    features = torch.randn(4, 8)
    linear = torch.nn.functional.normalize(head.direct(head.norm(features)), dim=-1)
    out = head(torch.randn(4, 8), features, torch.ones(4, dtype=torch.bool))
    assert bool(((out * linear).sum(1) > 0.9).all())


def test_in_training_a_share_of_the_rows_is_embedded_by_its_features_alone() -> None:
    torch.manual_seed(0)
    head = EmbeddingHead(8, 16, direct=8, dropout=0.25)
    pooled, features, here = torch.randn(400, 8), torch.ones(400, 8), torch.ones(400, dtype=torch.bool)
    # Features all alike are 0 after the norm: the linear part is its bias, whatever dropout hides.
    linear = torch.nn.functional.normalize(head.direct.bias, dim=-1)
    alone = (head(pooled, features, here) - linear).abs().amax(1) < 1e-6
    assert 60 < int(alone.sum()) < 140
    whole = head.eval()(pooled, features, here)
    assert bool(((whole - linear).abs().amax(1) > 1e-6).all())
    assert torch.equal(head.each(pooled, features), whole)


def test_states_without_features_are_always_heard() -> None:
    head = EmbeddingHead(8, 16, dropout=0.0)
    assert bool(head(torch.randn(50, 8), None, torch.ones(50, dtype=torch.bool)).any(1).all())


def test_a_number_is_in_its_tasks_units() -> None:
    torch.manual_seed(0)
    x = torch.randn(7, 8)
    plain, scaled = TaskHead(8, 1).eval(), TaskHead(8, 1, mean=3.0, std=2.0).eval()
    scaled.load_state_dict(plain.state_dict())
    assert plain(x).shape == (7,) and torch.allclose(scaled(x), 3 + 2 * plain(x))
    assert TaskHead(8, 3)(x).shape == (7, 3)
