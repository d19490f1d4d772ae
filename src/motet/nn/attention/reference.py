"""The truth that the other backends are compared with: one dense mask."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Reference:
    """Softmax over a dense (T, T) mask, in fp32 at least."""

    mask: Tensor  # (T, T) bool

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        wide = q.dtype if q.dtype.itemsize >= 4 else None
        heads, scale = q.shape[1] // k.shape[1], q.shape[2] ** -0.5
        q_, k_, v_ = (t.to(wide) if wide else t.float() for t in (q, k, v))
        k_, v_ = (t.repeat_interleave(heads, dim=1) for t in (k_, v_))
        score = (q_.transpose(0, 1) @ k_.permute(1, 2, 0)) * scale  # (H, T, T)
        weight = score.masked_fill(~self.mask, float("-inf")).softmax(-1)
        return (weight @ v_.transpose(0, 1)).transpose(0, 1).to(q.dtype)
