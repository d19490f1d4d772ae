"""Where a token stands: sinusoidal, rotary and learned positions in time, row and column.

All positions are measured on the layout's one clock and grid, never by index, so that tokens of
the same second stand together whatever their modality, and lengths and picture sizes that were
not trained on need nothing special.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from motet.errors import ConfigError
from motet.types import Layout


@dataclass(frozen=True)
class RotaryConfig:
    """Rotary positions in time x row x column.

    `time`, `row` and `col` are the shares of a head's frequency pairs that each axis turns; what
    they leave of 1 is not turned. `time_unit` seconds turn the fastest pair by one radian, as does
    one patch. `base` and `grid_base` are the ratios of the fastest to the slowest turn in time and
    on the grid; pictures have few patches a side, hence the smaller base.

    Sources: Su et al. 2021, arXiv:2104.09864; for the grid Heo et al. 2024, arXiv:2403.13298.
    """

    time: float = 0.5
    row: float = 0.25
    col: float = 0.25
    base: float = 10000.0
    grid_base: float = 100.0
    time_unit: float = 0.1

    def __post_init__(self) -> None:
        shares = (self.time, self.row, self.col)
        if min(shares) < 0 or not 0 < sum(shares) <= 1 + 1e-9:
            raise ConfigError(
                f"rotary: the shares time={self.time}, row={self.row}, col={self.col} must not be negative "
                "and must add up to more than 0 and at most 1, since they divide one head between them."
            )
        if min(self.base, self.grid_base) <= 1 or self.time_unit <= 0:
            raise ConfigError(
                f"rotary: base={self.base} and grid_base={self.grid_base} must be above 1 and "
                f"time_unit={self.time_unit} (seconds) above 0."
            )


class Rotation(NamedTuple):
    """The turn of every token: cos and sin, each (T, K/2)."""

    cos: Tensor
    sin: Tensor


class Rotary(nn.Module):
    """Turns of all tokens of a batch, computed once and used by every layer. Has no parameters.

    The frequencies are made anew for each batch instead of kept in a buffer: `model.bfloat16()`
    would round a buffer.

    Raises:
        ConfigError: an odd head size, or one so small that an axis with a share gets no pair.
    """

    def __init__(self, config: RotaryConfig, head_size: int) -> None:
        super().__init__()
        if head_size % 2:
            raise ConfigError(
                f"rotary: a head of {head_size} numbers cannot be paired; its size must be even."
            )
        self.config = config
        shares = {"time": config.time, "row": config.row, "col": config.col}
        self.pairs = _divide(head_size // 2, tuple(shares.values()))
        for (axis, share), pairs in zip(shares.items(), self.pairs, strict=True):
            if share > 0 and not pairs:
                raise ConfigError(
                    f"rotary: {axis}={share} of the {head_size // 2} pairs of a head is less than one pair. "
                    f"Use fewer heads, a larger share, or {axis}=0."
                )
        self.still = head_size // 2 - sum(self.pairs)

    def forward(self, layout: Layout, dtype: torch.dtype = torch.float32) -> Rotation:
        """layout of T tokens -> cos and sin, each (T, K/2), computed and returned in `dtype`."""
        config = self.config
        axes = (
            (layout.time.to(dtype) / config.time_unit, config.base),
            (layout.row.to(dtype), config.grid_base),
            (layout.col.to(dtype), config.grid_base),
        )
        turns = [
            value[:, None] * _frequencies(pairs, base, value)
            for (value, base), pairs in zip(axes, self.pairs, strict=True)
        ]
        turns.append(turns[0].new_zeros(len(turns[0]), self.still))
        angle = torch.cat(turns, dim=1)
        return Rotation(angle.cos(), angle.sin())


class _Turn(torch.autograd.Function):
    """The gradient of a turn is the turn back: nothing of x is kept."""

    @staticmethod
    def forward(ctx, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin)

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[no-untyped-def]
        cos, sin = ctx.saved_tensors
        return _turned(grad, cos, -sin), None, None


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    turned = x * torch.cat((cos, cos), dim=-1)  # whole rows at once: half a head is a short vector
    if torch.compiler.is_compiling():  # which fuses, and knows no steps in place on views
        first, second = x.chunk(2, dim=-1)
        return (turned + torch.cat((-second * sin, first * sin), dim=-1)).to(x.dtype)
    for half, other, by in zip(turned.chunk(2, dim=-1), x.chunk(2, dim=-1)[::-1], (-sin, sin), strict=True):
        half.addcmul_(other, by)
    return turned.to(x.dtype)


def apply_rotary(x: Tensor, rotation: Rotation) -> Tensor:
    """Turn pair j = (x[j], x[j + K/2]) of every head by the token's angle. (T, H, K) -> (T, H, K)

    Computed in the wider of the two types and returned in x's. Only pointwise steps, so that a
    compiler fuses them with what comes before.
    """
    return _Turn.apply(x, rotation.cos[:, None], rotation.sin[:, None])


def sinusoidal(values: Tensor, width: int, *, base: float = 10000.0) -> Tensor:
    """Sine and cosine features of any real values. (T,) -> (T, width)

    Column 2i is sin(value * base^(-2i/width)) and column 2i + 1 its cosine; a value of 1 turns the
    fastest by one radian, so divide seconds by the unit that should count as one step.

    Raises:
        ConfigError: an odd width.

    Source: Vaswani et al. 2017, section 3.5, arXiv:1706.03762.
    """
    if width % 2:
        raise ConfigError(f"sinusoidal: width {width} is odd; sines and cosines come in pairs.")
    values = values if values.dtype == torch.float64 else values.float()
    angle = values[:, None] * _frequencies(width // 2, base, values)
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1)


def sinusoidal_grid(row: Tensor, col: Tensor, width: int, *, base: float = 10000.0) -> Tensor:
    """Sinusoidal features of places on a grid: half of the width for each axis. (T,), (T,) -> (T, width)

    Raises:
        ConfigError: a width that is not a multiple of 4.
    """
    if width % 4:
        raise ConfigError(
            f"sinusoidal_grid: width {width} is not a multiple of 4 (two axes, sine and cosine)."
        )
    return torch.cat([sinusoidal(axis, width // 2, base=base) for axis in (row, col)], dim=1)


class LearnedPositions(nn.Module):
    """A learned vector for each of `size` places in a row, interpolated between them.

    A sequence of at most `size` places uses the first of them; a longer one is pressed onto all.
    """

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        if size < 1:
            raise ConfigError(f"learned positions: size {size} leaves no place; it must be at least 1.")
        self.table = nn.Parameter(torch.randn(size, width) * 0.02)

    def forward(self, position: Tensor, length: Tensor | float | None = None) -> Tensor:
        """position: (T,) in 0..length-1, whole or not; length: of each token's sequence, (T,) or one number.

        (T,) -> (T, width). Without `length`, places beyond the last get the last one's vector.
        """
        last = len(self.table) - 1
        place = position.to(self.table.dtype)
        if length is not None:
            end = torch.as_tensor(length, dtype=place.dtype, device=place.device) - 1
            place = place * torch.where(end > last, last / end.clamp(min=1), 1.0)
        below, above, share = _between(place, last)
        return torch.lerp(self.table[below], self.table[above], share[:, None])


class LearnedGrid(nn.Module):
    """A learned vector for each place of a rows x cols grid; pictures of other sizes are laid over it.

    As when a vision transformer's table is resized bilinearly, patch centres keep their place
    relative to the picture (Dosovitskiy et al. 2021, section 3.2, arXiv:2010.11929).
    """

    def __init__(self, rows: int, cols: int, width: int) -> None:
        super().__init__()
        if min(rows, cols) < 1:
            raise ConfigError(f"learned grid: {rows} x {cols} leaves no place; both must be at least 1.")
        self.table = nn.Parameter(torch.randn(rows, cols, width) * 0.02)

    def forward(
        self, row: Tensor, col: Tensor, rows: Tensor | float | None = None, cols: Tensor | float | None = None
    ) -> Tensor:
        """row, col: (T,) in patches; rows, cols: the size of each token's picture, (T,) or one number.

        (T,), (T,) -> (T, width). Without a size the picture is taken to have the trained one.
        """
        top, bottom, down = _between(*self._laid(row, rows, axis=0))
        left, right, along = _between(*self._laid(col, cols, axis=1))
        upper = torch.lerp(self.table[top, left], self.table[top, right], along[:, None])
        lower = torch.lerp(self.table[bottom, left], self.table[bottom, right], along[:, None])
        return torch.lerp(upper, lower, down[:, None])

    def _laid(self, place: Tensor, size: Tensor | float | None, axis: int) -> tuple[Tensor, int]:
        trained = self.table.shape[axis]
        place = place.to(self.table.dtype)
        if size is not None:
            size = torch.as_tensor(size, dtype=place.dtype, device=place.device)
            place = (place + 0.5) * (trained / size) - 0.5
        return place, trained - 1


def _between(place: Tensor, last: int) -> tuple[Tensor, Tensor, Tensor]:
    """The two whole places around each, and how far it is from the lower to the upper."""
    place = place.clamp(0, last)
    below = place.floor().long()
    return below, (below + 1).clamp(max=last), place - below


def _divide(pairs: int, shares: tuple[float, ...]) -> tuple[int, ...]:
    """Whole pairs for each share; shares that add up to 1 leave none."""
    edges, total = [0], 0.0
    for share in shares:
        total += share
        edges.append(round(total * pairs))
    return tuple(high - low for low, high in pairwise(edges))


def _frequencies(pairs: int, base: float, like: Tensor) -> Tensor:
    """base^(-i/pairs) for i = 0..pairs-1, in `like`'s type and on its device."""
    step = torch.arange(pairs, dtype=like.dtype, device=like.device) / max(pairs, 1)
    return torch.pow(base, -step)
