"""Encoders inside the model: the states of the frozen encoder, gradients, LoRA, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from motet.data.image import patches
from motet.errors import ConfigError
from motet.nn.backbone import Backbone, begin_epoch, make_backbone
from motet.nn.backbones import load_encoder
from motet.nn.finetune import Start, add_lora, load_start, merge_lora, put_weights
from motet.types import Layout, ModalitySpec

pytest.importorskip("transformers", reason="needs the extra 'hf'")


@pytest.fixture(scope="module")
def starts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Start]:
    from tests.nn.tiny_folders import bert_folder, vit_folder

    bert, vit = bert_folder(tmp_path_factory.mktemp("bert")), vit_folder(tmp_path_factory.mktemp("vit"))
    return {"text": load_start(str(bert), "text"), "image": load_start(str(vit), "image")}


def backbone_of(start: Start, kind: str) -> Backbone:
    size = start.vocab if kind == "text" else 3 * start.spec.patch**2
    spec = ModalitySpec("m", kind, "ids" if kind == "text" else "vectors", size, backbone=start.spec)  # type: ignore[arg-type]
    made = make_backbone(spec).eval()
    put_weights(made, start)
    return made


def words_of(texts: list[list[int]]) -> tuple[Tensor, Layout]:
    sample = torch.tensor([i for i, text in enumerate(texts) for _ in text], dtype=torch.int64)
    layout, _ = Layout.build(("m",), torch.zeros_like(sample), sample, samples=len(texts))
    return torch.tensor([word for text in texts for word in text], dtype=torch.int64), layout


def pictures_of(pixels: np.ndarray, frames: int) -> tuple[Tensor, Layout]:
    """Each clip has `frames` of the (n, 32, 32, 3) pictures."""
    n, cells = len(pixels), 16
    place = torch.arange(cells).repeat(n)
    sample = torch.arange(n).repeat_interleave(cells) // frames
    time = (torch.arange(n) % frames).repeat_interleave(cells).float()
    layout, order = Layout.build(
        ("m",), torch.zeros(n * cells, dtype=torch.int64), sample, time=time, row=place // 4, col=place % 4
    )
    levels = torch.from_numpy(patches(pixels, 8)).reshape(n * cells, -1)  # 0..255, as a batch scales them
    return (levels.float() / 127.5 - 1)[order], layout


def test_packed_texts_get_the_states_of_the_frozen_encoder(starts: dict[str, Start]) -> None:
    start = starts["text"]
    assert (start.spec.lead, start.spec.tail) == ((2,), (3,)) and start.vocab == 50
    texts = [[4, 5, 6], [], [7], [4, 4, 5, 6, 7]]
    values, layout = words_of(texts)
    with torch.no_grad():
        found = backbone_of(start, "text")(values, layout, "m").numpy()
    encoder = load_encoder(start.spec.name, "text")
    framed = [np.array([2, *text, 3]) for text in texts]
    expected = np.concatenate([states[1:-1] for states in encoder(framed)])
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("frames", [1, 2])
def test_packed_pictures_get_the_states_of_the_frozen_encoder(starts: dict[str, Start], frames: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    values, layout = pictures_of(pixels, frames)
    with torch.no_grad():
        found = backbone_of(starts["image"], "image")(values, layout, "m").numpy()
    encoder = load_encoder(starts["image"].spec.name, "image")
    mean, std = (np.array(v, np.float32).reshape(3, 1, 1) for v in (encoder.mean, encoder.std))  # type: ignore[attr-defined]
    inputs = [(p.transpose(2, 0, 1).astype(np.float32) / 255 - mean) / std for p in pixels]
    expected = np.concatenate([grid.reshape(16, 16) for grid in encoder(inputs)])
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_tokens_that_are_left_out_are_grey_or_gone(starts: dict[str, Start]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    values, layout = pictures_of(pixels, 1)
    kept = torch.tensor([i != 5 for i in range(32)])
    fields = {name: getattr(layout, name)[kept] for name in Layout.per_token()}
    shorter = replace(layout, counts=(31,), offsets=torch.tensor([0, 31]), **fields)
    net = backbone_of(starts["image"], "image")
    grey = values.clone()
    grey[5] = 0
    with torch.no_grad():
        assert torch.allclose(net(values[kept], shorter, "m"), net(grey, layout, "m")[kept], atol=1e-6)


@pytest.mark.parametrize("kind", ["text", "image"])
def test_without_tokens_the_gradients_are_zeros_not_missing(starts: dict[str, Start], kind: str) -> None:
    """On one of several ranks, say: a gradient that is missing there would hang the others."""
    none = torch.zeros(0, dtype=torch.int64)
    layout, _ = Layout.build(("m",), none, none, samples=3)
    net = backbone_of(starts[kind], kind)
    out = net(none if kind == "text" else torch.zeros(0, 192), layout, "m")
    assert out.shape == (0, 16)
    out.sum().backward()
    assert all(p.grad is not None and float(p.grad.abs().max()) == 0 for p in net.parameters())


def test_frozen_until_its_epoch(starts: dict[str, Start]) -> None:
    net = backbone_of(starts["text"], "text")
    net.unfreeze_at = 2
    values, layout = words_of([[4, 5]])
    model = torch.nn.ModuleDict({"m": net}).train()
    for epoch, learns in ((0, False), (1, False), (2, True)):
        begin_epoch(model, epoch)
        model.train()
        out = net(values, layout, "m")
        assert out.requires_grad == learns and net.net.training == learns


@pytest.mark.parametrize("kind", ["text", "image"])
def test_lora_starts_at_the_encoder_trains_little_and_merges(starts: dict[str, Start], kind: str) -> None:
    pytest.importorskip("peft", reason="needs the extra 'hf'")
    net = backbone_of(starts[kind], kind)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    values, layout = words_of([[4, 5, 6], [7]]) if kind == "text" else pictures_of(pixels, 1)
    names = set(net.state_dict())
    before = net(values, layout, "m").detach()
    total = sum(p.numel() for p in net.parameters())
    add_lora(net, rank=2, alpha=4)
    assert torch.equal(net(values, layout, "m").detach(), before)
    trained = [p for p in net.parameters() if p.requires_grad]
    assert trained and sum(p.numel() for p in trained) < total / 2
    with torch.no_grad():
        for p in trained:
            p.add_(0.05)
    moved = net(values, layout, "m").detach()
    assert not torch.allclose(moved, before, atol=1e-3)
    merge_lora(net)
    assert set(net.state_dict()) == names
    assert torch.allclose(net(values, layout, "m").detach(), moved, atol=1e-5)


def test_what_is_no_description_is_refused(starts: dict[str, Start]) -> None:
    spec = ModalitySpec(
        "m", "text", "ids", 50, backbone=replace(starts["text"].spec, architecture='{"a": 1}')
    )
    with pytest.raises(ConfigError, match=r"'m'.*not a config"):
        make_backbone(spec)
    other = replace(starts["text"].spec, architecture='{"model_type": "os.system"}')
    with pytest.raises(ConfigError, match="cannot make"):
        make_backbone(replace(spec, backbone=other))
    with pytest.raises(ConfigError, match="neither"):
        make_backbone(ModalitySpec("m", "audio", "vectors", 4, backbone=starts["text"].spec))
