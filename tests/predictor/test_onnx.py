"""The exported encoders give what the model gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from motet.data.collate import collate
from motet.model import Motet, MotetConfig
from motet.nn.block import BlockConfig
from motet.nn.mot import MoTConfig
from motet.predictor.onnx import OneModality, write_onnx
from motet.types import ModalitySpec, Piece, Sample

pytest.importorskip("onnxscript", reason="onnxscript is not installed (extra onnx)")
runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra onnx)")

SPECS = (
    ModalitySpec("words", "text", "ids", 50),
    ModalitySpec("photo", "image", "vectors", 12, "some-encoder"),
)
LENGTHS = (1, 4, 9)


def pieces(spec: ModalitySpec) -> list[Piece]:
    draw = np.random.default_rng(0)
    made = []
    for n in LENGTHS:
        values = draw.integers(0, 50, n) if spec.input == "ids" else draw.normal(size=(n, 12))
        row, col = np.divmod(np.arange(n, dtype=np.float32), 3)
        time = np.sort(draw.uniform(0, 3, n)).astype(np.float32)
        made.append(Piece(values.astype(np.int64 if spec.input == "ids" else np.float32), time, row, col))
    return made


def padded(parts: list[np.ndarray]) -> np.ndarray:
    out = np.zeros((len(parts), max(LENGTHS), *parts[0].shape[1:]), parts[0].dtype)
    for i, part in enumerate(parts):
        out[i, : len(part)] = part
    return out


@pytest.mark.parametrize(
    ("spec", "attend", "pool"), [(SPECS[0], ("own", "global"), "attention"), (SPECS[1], ("global",), "mean")]
)
def test_a_padded_batch_gives_the_vectors_of_the_packed_one(
    spec: ModalitySpec, attend: tuple, pool: Literal["attention", "mean"], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    block = BlockConfig(width=32, heads=4, kv_heads=2, qk_norm=True)
    mot = MoTConfig(block=block, depth=2, attend=attend)
    model = Motet(MotetConfig(SPECS, mot=mot, embedding=16, pool=pool)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    samples = [Sample(str(i), {spec.name: piece}) for i, piece in enumerate(pieces(spec))]
    with torch.inference_mode():
        wanted = model.encode(collate(samples, SPECS, {}))[spec.name].numpy()
    fields = {
        name: padded([getattr(p, name) for p in pieces(spec)]) for name in ("values", "time", "row", "col")
    }
    inputs = fields | {"mask": padded([np.ones(len(p), bool) for p in pieces(spec)])}

    module, path = OneModality(model, spec), tmp_path / "x.onnx"
    write_onnx(module, module.example(), ("vector",), path)
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    taken = {given.name for given in session.get_inputs()}
    assert taken == inputs.keys()
    (found,) = session.run(None, inputs)
    assert found.shape == (3, 16) and np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert np.abs(found - wanted).max() < 1e-5
    alone = {name: value[1:2, :4] for name, value in inputs.items()}  # other sizes, no padding
    (one,) = session.run(None, alone)
    assert np.abs(one - wanted[1:2]).max() < 1e-5


def test_a_folder_is_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from motet.predictor import onnx

    class Stub:
        def __init__(self) -> None:
            mot = MoTConfig(block=BlockConfig(width=32), depth=1)
            self.fingerprint, self.width, self.processors = "f" * 64, 16, {"words": object()}
            self.model = Motet(MotetConfig(SPECS[:1], mot=mot, embedding=16))

        def needs_space(self) -> None: ...

    monkeypatch.setattr(onnx, "write_onnx", lambda *said, **more: said[3].write_bytes(b"onnx"))
    made = onnx.export_onnx(Stub(), tmp_path / "out")  # type: ignore[arg-type]
    assert [path.name for path in made] == ["words.onnx", "onnx.json"]
    about = json.loads(made[-1].read_text())
    assert about["files"]["words.onnx"]["values"] == {"type": "ids", "size": 50, "from": None}
