"""Light changes to pictures in training, so that no picture is seen twice alike."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from motet.errors import ConfigError
from motet.types import ModalitySpec, Piece


@dataclass(frozen=True)
class AugmentConfig:
    """A crop of a random share of the area and aspect, resized; perhaps mirrored; colours jittered.

    `flip` is the chance of mirroring, 0 because writing, hands and sides have a meaning. `colour` is the
    most by which brightness, contrast and saturation change, as a share.
    """

    crop: tuple[float, float] = (0.7, 1.0)
    aspect: float = 1.15
    flip: float = 0.0
    colour: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.crop[0] <= self.crop[1] <= 1 or self.aspect < 1:
            raise ConfigError("augment: crop is two shares of the area, rising, and aspect at least 1.")
        if not (0 <= self.flip <= 1 and 0 <= self.colour < 1):
            raise ConfigError("augment: flip is a chance, colour a share below 1.")


def can_augment(spec: ModalitySpec) -> bool:
    """Pictures as patches can; what a frozen encoder made of them cannot."""
    return spec.kind == "image" and spec.pretrained is None and spec.input == "vectors"


def augmented(piece: Piece, config: AugmentConfig, random: np.random.Generator) -> Piece:
    """The same piece of another view of its picture: (n, 3 * p * p) patches of a square, as levels or
    in -1..1, to such in -1..1."""
    crop, jitter = random.random(5), 1 + config.colour * (2 * random.random(3) - 1)
    n = len(piece)
    grid, patch = math.isqrt(n), math.isqrt(piece.values.shape[1] // 3)
    size = grid * patch
    tiles = piece.values.reshape(grid, grid, patch, patch, 3).transpose(0, 2, 1, 3, 4)
    picture = tiles.reshape(size, size, 3)
    if picture.dtype != np.uint8:  # not from the processors here
        picture = np.rint((picture + 1) * 127.5).astype(np.uint8)
    resized = Image.fromarray(picture).resize(
        (size, size), Image.Resampling.BILINEAR, box=_box(size, config, crop)
    )
    view = np.asarray(resized, np.float32) / 255
    if crop[4] < config.flip:
        view = view[:, ::-1]
    brightness, contrast, saturation = jitter.astype(np.float32)
    view = view * brightness
    mean = view.mean()
    view = (view - mean) * contrast + mean
    grey = view @ np.array([0.299, 0.587, 0.114], np.float32)
    view = np.clip(grey[..., None] + (view - grey[..., None]) * saturation, 0, 1)
    patches = view.reshape(grid, patch, grid, patch, 3).transpose(0, 2, 1, 3, 4)
    return replace(piece, values=patches.reshape(n, -1).astype(np.float32) * 2 - 1)


def _box(size: int, config: AugmentConfig, draw: np.ndarray) -> tuple[float, float, float, float]:
    """left, top, right, bottom of a crop within the picture."""
    low, high = config.crop
    area = (low + (high - low) * draw[0]) * size * size
    ratio = math.exp((2 * draw[1] - 1) * math.log(config.aspect))
    width, height = min(size, math.sqrt(area * ratio)), min(size, math.sqrt(area / ratio))
    left, top = draw[2] * (size - width), draw[3] * (size - height)
    return left, top, left + width, top + height
