"""Views against a known truth, under every fusion: a label hangs on one token, and the view must name it."""

from functools import cache
from typing import get_args

import numpy as np
import pytest
import torch

from motet.explain.capture import capture
from motet.explain.faithfulness import deletion_tests, summarise
from motet.explain.relevance import relevance, token_relevance
from motet.explain.rollout import gradient_rollout, importance_of, integrated_gradients, rollout
from motet.model import Motet
from motet.nn.fusion import FusionName
from tests.explain.planted import NAMES, learn, named, one_class, plant, right_answer, small

ITEMS = 18  # that are looked at one by one


@cache
def learned(fusion: FusionName) -> Motet:
    return learn(small(fusion))


@pytest.mark.parametrize("fusion", [name for name in get_args(FusionName) if name != "tensor"])
def test_relevance_names_the_planted_token_of_the_task_that_is_asked(fusion: FusionName) -> None:
    """One word, one patch, one half second; each item holds all three, so a view has to know the answer.

    Not TFN: it multiplies the modalities, so that others may carry what one told (docs/decisions/views.md).
    """
    model, (batch, labels, places) = learned(fusion), plant(100, 99)
    for m, name in enumerate(NAMES):
        answer = right_answer(name, labels[:, m])
        captured, found = capture(model, batch), token_relevance(model, batch, answer)
        views = [importance_of("relevance", captured, i, found) for i in range(100)]
        hits = sum(named(view, name, int(places[i, m])) for i, view in enumerate(views))
        assert hits >= 95, (name, hits)


def test_the_other_views_of_late_fusion_and_their_tests() -> None:
    """Gradient rollout and integrated gradients find most; attention alone does not, and its test says so."""
    late, (batch, labels, places) = learned("late"), plant(ITEMS, 99)
    hits = dict.fromkeys(("relevance", "gradient rollout", "integrated gradients", "rollout"), 0)
    tests = []
    for i in range(ITEMS):
        m = i % 3
        one, answer = batch.rows(i, i + 1), right_answer(NAMES[m], labels[i : i + 1, m])
        seen = capture(late, one, answer)
        views = (
            relevance(late, one, seen, answer),
            gradient_rollout(seen),
            integrated_gradients(late, one, seen, answer, steps=12),
            rollout(seen),
        )
        for view in views:
            hits[view.method] += named(view, NAMES[m], int(places[i, m]))
        said = one_class(NAMES[m], int(labels[i, m]))
        tests.append(deletion_tests(late, one, views, said, steps=8))
    # the baseline of integrated gradients, the mean, holds a part of the signal
    assert hits["relevance"] == ITEMS and min(hits["gradient rollout"], hits["integrated gradients"]) >= 14
    assert hits["rollout"] <= 12, hits
    summaries = {group[0].method: summarise(group) for group in zip(*tests, strict=True)}
    # one token of 23 decides: one random order in 23 is as good as the truth, and 19 in 20 must be worse
    assert summaries["relevance"].verdicts["faithful"] >= 11, summaries["relevance"].verdicts
    assert summaries["relevance"].between > summaries["rollout"].between


def test_attention_that_means_nothing_is_reported_as_unfaithful() -> None:
    model = learn(small(attention=False))
    batch, labels, _ = plant(ITEMS, 5)
    tests = []
    for i in range(ITEMS):
        m = i % 3
        one, answer = batch.rows(i, i + 1), one_class(NAMES[m], int(labels[i, m]))
        seen = capture(model, one, answer)
        views = [rollout(seen), relevance(model, one, seen, answer)]
        tests.append(deletion_tests(model, one, views, answer, steps=8))
    attention, found = (summarise(group).verdicts for group in zip(*tests, strict=True))
    assert attention["faithful"] <= 3 and found["faithful"] >= 11, (attention, found)


def test_views_of_random_weights_are_other_views() -> None:
    """The sanity check of Adebayo et al. 2018: a view that random weights leave as it was shows the input."""
    late, (batch, labels, places) = learned("late"), plant(30, 3)
    random = small("late")
    torch.manual_seed(1)
    for parameter in random.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    answers = [right_answer(name, labels[:, m]) for m, name in enumerate(NAMES)]
    for m, answer in enumerate(answers):
        ours, theirs = capture(late, batch, answer), capture(random, batch, answer)
        of_ours, of_theirs = (token_relevance(model, batch, answer) for model in (late, random))
        pairs = [(gradient_rollout(ours, sample=i), gradient_rollout(theirs, sample=i)) for i in range(30)]
        pairs += [
            (importance_of("", ours, i, of_ours), importance_of("", theirs, i, of_theirs)) for i in range(30)
        ]
        alike = [np.corrcoef(ranks(a.value), ranks(b.value))[0, 1] for a, b in pairs]
        assert abs(float(np.mean(alike[:30]))) < 0.5 and abs(float(np.mean(alike[30:]))) < 0.5, alike
        found = [named(b, NAMES[m], int(places[i % 30, m])) for i, (_, b) in enumerate(pairs)]
        assert sum(found[:30]) <= 15 and sum(found[30:]) <= 15


def test_samples_of_a_batch_do_not_touch_each_others_relevance() -> None:
    model, (batch, labels, _) = small("hierarchical"), plant(4, 3)
    everyone = token_relevance(model, batch, right_answer("text", labels[:, 0]))
    for i in range(4):
        alone = token_relevance(model, batch.rows(i, i + 1), right_answer("text", labels[i : i + 1, 0]))
        torch.testing.assert_close(alone, everyone[batch.layout.sample == i], atol=1e-5, rtol=1e-3)


def ranks(values: np.ndarray) -> np.ndarray:
    return values.argsort().argsort().astype(float)
