"""Two processes that train an encoder within the model, one of them at times without a text for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from motet.checkpoint import load_folder
from motet.losses import LossConfig, Objective
from motet.model import Motet
from motet.train.distributed import World, join
from motet.train.loop import TrainConfig, train
from motet.train.optim import GroupConfig
from motet.train.run import RunFolder
from motet.types import BackboneSpec, ModalitySpec, TokenBatch
from tests.train.processes import two_processes
from tests.train.training_fakes import CONFIG, SPECS, make_batch

pytest.importorskip("transformers", reason="needs the extra 'hf'")
BERT = (
    '{"model_type": "bert", "vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, '
    '"num_attention_heads": 2, "intermediate_size": 8, "max_position_embeddings": 8, '
    '"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}'
)
MODEL = replace(
    CONFIG,
    modalities=(
        ModalitySpec("text", "text", "ids", 20, backbone=BackboneSpec("b", 8, BERT, (1,), (2,))),
        SPECS[1],
    ),
    mot=replace(CONFIG.mot, block=replace(CONFIG.mot.block, dropout=0.0)),
    embed=replace(CONFIG.embed, dropout=0.0),
    head_dropout=0.0,
)
GROUPS = {"text.backbone": GroupConfig(lr=1e-2, start=1)}
TRAIN = TrainConfig(epochs=3, lr=3e-3, metric="loss", log_steps=1, checkpoint_seconds=0, groups=GROUPS)


def _silent_first(seed: int) -> int:
    """The next seed of a batch whose first two samples have no text."""
    while bool(make_batch(seed, 6).layout.present()[:2, 0].any()):
        seed += 1
    return seed


class Slices:
    """Batches of 6 samples; in the second, rank 0 has the two without a text."""

    steps_per_epoch = 3

    def __init__(self, world: World) -> None:
        self.world = world

    def batches(self, epoch: int, start: int = 0) -> Iterator[TokenBatch]:
        for position in range(start, self.steps_per_epoch):
            seed = 100 * epoch + position
            batch = make_batch(_silent_first(seed) if position == 1 else seed, 6)
            batch = replace(batch, values={**batch.values, "sound": batch.values["sound"].double()})
            bounds = [0, 2, 6] if self.world.size == 2 else [0, 6]
            yield batch.rows(bounds[self.world.rank], bounds[self.world.rank + 1])


def run(path: Path, world: World) -> None:
    torch.manual_seed(0)
    model, objective = Motet(MODEL).double(), Objective(LossConfig(), MODEL).double()
    model.backbone["text"].unfreeze_at = 1
    with world.main_first():
        folder = RunFolder(path, {}, resume=not world.main)
    config = replace(TRAIN, parallel=world.parallel)
    train(model, objective, Slices(world), Slices(World()), config, run=folder, world=world)


def child(folder: str) -> None:
    for parallel in ("ddp", "fsdp"):
        run(Path(folder) / parallel, join(parallel))  # type: ignore[arg-type]


def test_two_processes_end_where_one_does(tmp_path: Path) -> None:
    run(tmp_path / "alone", World())
    code = f"from tests.train.test_distributed_backbone import child; child({str(tmp_path)!r})"
    two_processes(code)
    one = load_folder(tmp_path / "alone/checkpoints/last").tensors
    assert any(name.startswith("optimizer/text.backbone/") for name in one)
    for parallel in ("ddp", "fsdp"):
        two = load_folder(tmp_path / parallel / "checkpoints/last").tensors
        assert one.keys() == two.keys()
        for name, expected in one.items():
            assert float((two[name] - expected).abs().max()) < 1e-10, (parallel, name)
