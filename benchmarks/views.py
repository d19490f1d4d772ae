"""How often each view of a trained model passes the deletion and insertion test; prints JSON.

python benchmarks/views.py MODEL TABLE [--rows 40] [--out benchmarks/results]

The rows are test rows in a seeded order. Beside the views of a report stands gradient rollout as its paper
has it: with the weighted attention added to an identity.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np
import torch
from common import report

from motet.data.collate import collate
from motet.explain.capture import Capture, capture
from motet.explain.faithfulness import DeletionTest, deletion_tests, summarise
from motet.explain.item import answer_score
from motet.explain.occlusion import leave_one_out
from motet.explain.relevance import relevance
from motet.explain.rollout import Importance, gradient_rollout, importance_of, integrated_gradients, rollout
from motet.predictor import Predictor
from motet.predictor.cells import read_entries
from motet.predictor.inputs import Entry


def added_rollout(captured: Capture) -> Importance:
    """Chefer et al. 2021, arXiv:2103.15679, equations 5 and 6, one sample."""
    assert captured.token_gradient is not None
    everyone, states = torch.arange(captured.layout.tokens), captured.output.tokens
    modality = captured.layout.modality
    means = torch.stack([states[modality == m].mean(0) for m in range(len(captured.layout.modalities))])
    flow = (captured.token_gradient * (states - means[modality])).sum(-1).abs().double()
    flow = flow / flow.sum()
    for index in reversed(range(len(captured.layers))):
        layer = captured.layers[index]
        assert layer.gradient is not None and layer.v is not None
        values = layer.v.repeat_interleave(layer.q.shape[1] // layer.v.shape[1], dim=1)
        gradient = torch.einsum("rhk,thk->rht", layer.gradient, values)
        raised = (gradient * captured.weights(index, everyone)).clamp(min=0).mean(1).double()
        flow = flow + flow @ raised
    return importance_of("gradient rollout, identity added", captured, 0, flow)


def views_of(predictor: Predictor, entry: Entry) -> list[DeletionTest]:
    model = predictor.model
    samples = read_entries([entry], predictor.processors, predictor.cache)
    batch = collate(samples, model.config.modalities, {}, labels=True)
    with torch.no_grad():
        score, _ = answer_score(model.config.tasks, model(batch))
    captured = capture(model, batch, score)
    gradients = integrated_gradients(model, batch, captured, score, steps=16)
    views = [
        relevance(model, batch, captured, score),
        gradients,
        dataclasses.replace(
            gradients, method="integrated gradients, size alone", signed=abs(gradients.signed)
        ),
        leave_one_out(model, batch, captured, score),
        gradient_rollout(captured),
        added_rollout(captured),
        rollout(captured),
    ]
    return deletion_tests(model, batch, views, score)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("table", type=Path)
    parser.add_argument("--rows", type=int, default=40)
    parser.add_argument("--out", help="folder for the result")
    asked = parser.parse_args()
    predictor = Predictor.load(asked.model)
    rows = [entry for entry in predictor.entries(asked.table) if entry.fields["split"] == "test"]
    order = np.random.default_rng(0).permutation(len(rows))[: asked.rows]
    tests = [views_of(predictor, rows[i]) for i in order]
    found = {}
    for group in zip(*tests, strict=True):
        said = summarise(group)
        found[said.method] = {
            "deletion": [round(v, 4) for v in (said.area, said.area_low, said.area_high)],
            "insertion": [round(v, 4) for v in (said.insertion, said.insertion_low, said.insertion_high)],
            "between": [round(v, 4) for v in (said.between, said.between_low, said.between_high)],
            "verdicts": said.verdicts,
            "better_than_19_of_20_random_by_deletion_alone": sum(test.low > 0 for test in group),
        }
    fusion = predictor.model.config.fusion
    report("views", "cpu", {"rows": len(tests), "fusion": fusion, "views": found}, asked.out)


if __name__ == "__main__":
    main()
