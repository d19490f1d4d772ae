"""Evaluation with a stand-in model whose answers are known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from motet.errors import DataError
from motet.model import TaskSpec
from motet.tasks.card import model_card
from motet.tasks.evaluate import evaluate, exchanged, subsets_of
from motet.types import ModalitySpec, Output, Piece, Sample, TokenBatch

SPECS = (ModalitySpec("text", "text", "ids", 50), ModalitySpec("sound", "audio", "vectors", 2))


class TextKnows(nn.Module):
    """Says the class that the text's first id names; without text, class 0. Sound says nothing."""

    def __init__(self, tasks: tuple[TaskSpec, ...], contrastive: bool = True) -> None:
        super().__init__()
        self.config = SimpleNamespace(modalities=SPECS, tasks=tasks, contrastive=contrastive)
        self.modalities = ("text", "sound")
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, batch: TokenBatch) -> Output:
        n = len(batch.ids)
        told = torch.zeros(n)
        told[batch.layout.sample[batch.layout.slice_of("text")]] = batch.values["text"].float()
        predictions = {}
        for task in self.config.tasks:
            if task.kind == "number":
                predictions[task.name] = told
            else:
                predictions[task.name] = 5.0 * nn.functional.one_hot(told.long() % 2, 2).float()
        vectors = nn.functional.normalize(torch.eye(n), dim=-1)
        embeddings = {m: vectors for m in self.modalities} if self.config.contrastive else {}
        return Output(torch.zeros(0, 1), torch.zeros(n, 1), batch.layout.present(), embeddings, predictions)


def samples(count: int = 40) -> list[Sample]:
    made = []
    for i in range(count):
        pieces = {"text": Piece(np.array([i]), np.zeros(1, np.float32))}
        if i % 4:
            pieces["sound"] = Piece(np.full((1, 2), float(i), np.float32), np.zeros(1, np.float32))
        targets = {"mood": i % 2} if i < 30 else {}
        made.append(Sample(str(i), pieces, targets))
    return made


CLASSES = TaskSpec("mood", "classes", ("even", "odd"))


def test_every_subset_beside_the_majority_and_what_each_modality_adds() -> None:
    found = evaluate(TextKnows((CLASSES,)), samples())  # type: ignore[arg-type]
    mood = found["tasks"]["mood"]
    assert found["n"] == 40
    assert mood["n"] == 30  # rows without a label are left out
    rows = {tuple(row["modalities"]): row for row in mood["subsets"]}
    assert list(rows) == [("text", "sound"), ("text",), ("sound",)]
    assert rows["text", "sound"]["accuracy"] == rows["text",]["accuracy"] == 1.0
    # Sound alone: all 22 rows with a sound are called "even", 7 of them are.
    assert rows["sound",]["n"] == 22
    assert rows["sound",]["accuracy"] == pytest.approx(7 / 22)
    assert mood["text_only"] == rows["text",]
    assert mood["baseline"]["accuracy"] == 0.5
    helps = {row["modality"]: row["sentence"] for row in mood["helps"]}
    assert helps["text"].startswith("text helps for mood: macro-F1 1.000 with it")
    assert helps["sound"].startswith("sound adds nothing here")
    assert mood["full"]["confusion"] == [[15, 0], [0, 15]]


def test_each_modality_exchanged_between_rows_tells_what_is_used() -> None:
    rows = samples()
    found = evaluate(TextKnows((CLASSES,)), rows)  # type: ignore[arg-type]
    mood = found["tasks"]["mood"]
    shuffled = {row["modality"]: row for row in mood["shuffled"]}
    assert shuffled["text"]["sentence"].startswith(
        "the model relies on text for mood: macro-F1 1.000 with its own"
    )
    assert shuffled["text"]["without"] < 0.8
    assert shuffled["sound"]["with"] == shuffled["sound"]["without"]
    assert shuffled["sound"]["sentence"].startswith("the model takes nothing from sound")
    assert all(row["sentence"] in found["sentences"] for row in mood["shuffled"])
    low, high = mood["full"]["intervals"]["accuracy"]
    assert low == high == 1.0 and set(mood["full"]["intervals"]) == {"accuracy", "macro_f1", "weighted_f1"}


def test_exchanged_rows_have_anothers_and_nothing_else_changes() -> None:
    rows = samples(12)
    other = exchanged(rows, "sound")
    have = [i for i, row in enumerate(rows) if "sound" in row.pieces]
    assert [i for i, row in enumerate(other) if "sound" in row.pieces] == have
    assert all(other[i].pieces["sound"] is not rows[i].pieces["sound"] for i in have)
    assert {id(other[i].pieces["sound"]) for i in have} == {id(rows[i].pieces["sound"]) for i in have}
    assert all(a.pieces.get("text") is b.pieces.get("text") for a, b in zip(rows, other, strict=True))
    assert exchanged(rows[:1], "sound") == []


def test_retrieval_counts_and_a_number_task() -> None:
    rows = [Sample(s.id, s.pieces, {"score": float(i)}) for i, s in enumerate(samples(8))]
    found = evaluate(TextKnows((TaskSpec("score", "number"),)), rows)  # type: ignore[arg-type]
    assert {(p["query"], p["answer"], p["n"]) for p in found["retrieval"]} == {
        ("text", "sound", 6),
        ("sound", "text", 6),
    }
    score = found["tasks"]["score"]
    assert score["full"]["mae"] == 0.0
    assert score["baseline"]["mae"] == 2.0
    assert {row["modality"]: row["sentence"] for row in score["helps"]}["text"].startswith("text helps")


def test_nothing_to_measure_is_said() -> None:
    with pytest.raises(DataError, match="no row"):
        evaluate(TextKnows((CLASSES,)), [])  # type: ignore[arg-type]
    bare = [Sample(s.id, s.pieces) for s in samples(4)]
    with pytest.raises(DataError, match="mood"):
        evaluate(TextKnows((CLASSES,), contrastive=False), bare)  # type: ignore[arg-type]


def test_subsets_stay_few_for_many_modalities() -> None:
    assert len(subsets_of("abc")) == 7
    assert subsets_of("abc")[0] == ("a", "b", "c")
    assert len(subsets_of("abcdefgh")) == 1 + 8 + 8


def test_card_states_the_numbers_the_origin_and_the_limits() -> None:
    metrics = {"part": "test"} | evaluate(TextKnows((CLASSES,)), samples())  # type: ignore[arg-type]
    training = {
        "epochs": 3,
        "steps": 30,
        "seconds": 1.0,
        "seed": 0,
        "parameters": 1234567,
        "best": "Kept 30.",
    }
    card = model_card(
        name="moods",
        modalities=[
            {"name": "text", "kind": "text", "pretrained": "minilm"},
            {"name": "sound", "kind": "audio", "pretrained": None},
        ],
        counts={"train": 100, "test": 40, "quarantined": 2},
        metrics=metrics,
        training=training,
        dataset={"name": "Moods", "note": "The speech is synthesised.", "licence": "CC0"},
    )
    assert "1,234,567 trained parameters" in card
    assert "| text + sound | 1.000 | 1.000 |" in card
    assert "| *always “even”* | 0.500 |" in card
    assert "| text → sound |" in card
    assert "speech is synthesised: nothing is known about human speakers" in card
    assert "| quarantined | 2 |" in card
    assert all(line.count("|") >= 3 for line in card.splitlines() if line.startswith("|"))
