import dataclasses

import numpy as np
import pytest
import torch

from motet.explain.capture import capture
from motet.explain.faithfulness import shortened
from motet.explain.item import explain_sample
from motet.explain.met import meeting_html
from motet.explain.more import heads_html, seconds_html
from motet.explain.occlusion import kept_place, leave_one_out, meeting, place
from motet.explain.patterns import patterns
from motet.model import Motet, TaskSpec
from tests.explain.test_capture import COUNTS, make_batch, make_model


def test_a_token_is_worth_what_the_score_loses_without_it() -> None:
    model, batch = make_model(), make_batch(COUNTS[:1])
    captured = capture(model, batch)
    score = kept_place(captured.output)
    found = leave_one_out(model, batch, captured, score)
    keep = torch.ones(1, 13, dtype=torch.bool)
    keep[0, 7] = False
    with torch.no_grad():
        lost = 1 - float(score(model(shortened(batch, np.arange(13), keep)))[0])
    assert found.signed[7] == pytest.approx(lost, abs=1e-5)
    assert found.value.sum() == pytest.approx(1.0) and found.modality[7] == "picture"


def test_tokens_meet_by_the_second_difference_of_the_cosine() -> None:
    model = make_model()
    query, result = make_batch(COUNTS[1:2]), make_batch(COUNTS[2:], seed=4)
    found = meeting(model, query, result)

    def vector(batch, gone: int | None) -> torch.Tensor:
        keep = torch.ones(1, batch.layout.tokens, dtype=torch.bool)
        if gone is not None:
            keep[0, gone] = False
        with torch.no_grad():
            return place(model(shortened(batch, np.arange(batch.layout.tokens), keep)))[0]

    q, r, q2, r4 = vector(query, None), vector(result, None), vector(query, 2), vector(result, 4)
    assert found.together.shape == (7, 6) and found.result_modality == ("picture",) * 6
    assert found.cosine == pytest.approx(float(q @ r), abs=1e-5)
    assert found.query[2] == pytest.approx(float((q - q2) @ r), abs=1e-5)
    assert found.together[2, 4] == pytest.approx(float((q - q2) @ (r - r4)), abs=1e-5)


def test_patterns_have_the_density_of_their_rule() -> None:
    captured = capture(make_model("own", "own", "global"), make_batch(COUNTS[:1]))
    own, everything = patterns(captured)
    assert own.layers == (0, 1) and everything.layers == (2,)
    assert own.density == pytest.approx((3**2 + 6**2 + 4**2) / 13**2)
    assert everything.density == pytest.approx(1.0)
    assert own.share[0, :3].tolist() == [1, 1, 1] and not own.share[0, 3:].any()


@pytest.mark.parametrize("task", [None, "number", "multilabel"])
def test_models_of_every_task_are_tested(task: str | None) -> None:
    classes = ("a", "b", "c") if task == "multilabel" else ()
    tasks = (TaskSpec("mood", task, classes, mean=1.0, std=2.0),) if task else ()
    torch.manual_seed(0)
    config = dataclasses.replace(make_model().config, tasks=tasks)
    explained = explain_sample(Motet(config), make_batch(COUNTS[:1]), {})
    assert [test.method for test in explained.tests][1:] == [
        "integrated gradients",
        "gradient rollout",
        "rollout",
    ]
    assert explained.importance.method == ("relevance" if task else "leave one out")
    assert explained.deletion is explained.tests[0] and np.isfinite(explained.deletion.area)
    numbers = explained.to_dict()
    assert len(numbers["tests"]) == 4 and numbers["explained"]


def test_parts_for_who_looks_closer() -> None:
    model = make_model()
    explained = explain_sample(model, make_batch(COUNTS[:1]), {})
    assert meeting_html(explained) == ""
    assert "text listening to speech" in seconds_html(explained) and ">w1</text>" in seconds_html(explained)
    assert "Who may look at whom" in heads_html(explained)
    found = meeting(model, make_batch(COUNTS[1:2]), make_batch(COUNTS[2:]), result_modality="picture")
    assert "Which tokens met" in meeting_html(dataclasses.replace(explained, meeting=found))
