"""Views of captured attention: each a function that returns a small dataclass of NumPy arrays.

Every view has `.to_dict()`, plain JSON values. Shares are fractions of one; times are seconds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from motet.errors import ConfigError
from motet.explain.capture import Capture


class View:
    """A dataclass of arrays and plain values that knows its JSON form."""

    def to_dict(self) -> dict[str, Any]:
        plain: dict[str, Any] = {}
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            plain[field.name] = value.tolist() if isinstance(value, np.ndarray) else value
        return plain


@dataclasses.dataclass(frozen=True, eq=False)
class ModalityMatrix(View):
    """How much the tokens of each modality (rows) take from each modality (columns).

    raw, corrected: (layers, heads, M, M), rows add up to one. `raw` is the mean share of attention;
    `corrected` divides it by the share that even attention over all visible keys would give, and
    renormalises: a modality with ten times the tokens is not heard ten times for that alone.
    `whole_*` (M, M) are means over `mixing`, the layers in which modalities can hear each other
    (over all layers where there is none). tokens: (M,) how many each modality has.
    """

    modalities: tuple[str, ...]
    tokens: np.ndarray
    raw: np.ndarray
    corrected: np.ndarray
    mixing: tuple[int, ...]
    whole_raw: np.ndarray
    whole_corrected: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class TokenAttention(View):
    """What each token of one modality took from each token of another, in one sample.

    weights: (Q, K), rows add up to one over the keys of this modality; share: (Q,) the part of the
    query's whole attention that went to this modality. Means over heads and `layers`.
    row, col (K,) place keys in a picture's grid of patches; time (K,) in seconds.
    """

    query: str
    key: str
    query_labels: tuple[str, ...]
    key_labels: tuple[str, ...]
    weights: np.ndarray
    share: np.ndarray
    query_time: np.ndarray
    time: np.ndarray
    row: np.ndarray
    col: np.ndarray
    layers: tuple[int, ...]

    def grid(self) -> np.ndarray:
        """The weights on the picture's patches. (Q, rows, cols)"""
        return on_grid(self.weights, self.row, self.col)


@dataclasses.dataclass(frozen=True, eq=False)
class TemporalAttention(View):
    """Seconds of one modality against seconds of another. weights: (bins, bins), rows add to one."""

    query: str
    key: str
    query_edges: np.ndarray
    key_edges: np.ndarray
    weights: np.ndarray
    layers: tuple[int, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class HeadStatistics(View):
    """Per layer and head, (layers, heads): means over the query tokens.

    own: share of attention that stays in the query's modality; cross = 1 - own.
    entropy: of the weights, divided by that of even attention over the visible keys (0 one key, 1
    all alike). distance: seconds between query and key, weighted by attention.
    """

    own: np.ndarray
    cross: np.ndarray
    entropy: np.ndarray
    distance: np.ndarray


def modality_matrix(captured: Capture, *, sample: int | None = None) -> ModalityMatrix:
    """Modality x modality attention of one sample, or of all samples of the batch together."""
    names = captured.present(sample)
    if not names:
        raise ConfigError(f"explain: sample {sample} has no tokens, so nothing to look at.")
    rows = {name: captured.tokens_of(sample, name) for name in names}
    columns = [captured.layout.slice_of(name) for name in names]
    shape = (len(captured.layers), captured.heads, len(names), len(names))
    raw, even = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)
    for layer in range(len(captured.layers)):
        for m, name in enumerate(names):
            for piece, weights in captured.pieces(layer, rows[name]):
                raw[layer, :, m] += _by_slice(weights, columns).sum(0)
                visible = _by_slice(captured.mask(layer, piece).double(), columns)
                even[layer, :, m] += (visible / visible.sum(-1, keepdim=True).clamp(min=1)).sum(0)
            raw[layer, :, m] /= len(rows[name])
            even[layer, :, m] /= len(rows[name])
    ratio = torch.where(even > 0, raw / even.clamp(min=1e-12), 0.0)
    corrected = ratio / ratio.sum(-1, keepdim=True).clamp(min=1e-12)
    cross = even * ~torch.eye(len(names), dtype=torch.bool)
    mixing = tuple(cross.sum((1, 2, 3)).nonzero().flatten().tolist())
    counted = list(mixing) or list(range(len(captured.layers)))
    return ModalityMatrix(
        modalities=names,
        tokens=np.array([len(rows[name]) for name in names]),
        raw=raw.numpy(),
        corrected=corrected.numpy(),
        mixing=mixing,
        whole_raw=raw[counted].mean((0, 1)).numpy(),
        whole_corrected=corrected[counted].mean((0, 1)).numpy(),
    )


def token_attention(
    captured: Capture, query: str, key: str, *, sample: int = 0, layers: Sequence[int] | None = None
) -> TokenAttention:
    """Each token of modality `query` over the tokens of modality `key`.

    `layers` defaults to those in which the one may look at the other.

    Raises:
        ConfigError: a modality is missing in this sample, or no layer lets the two meet.
    """
    rows, keys = _pair(captured, query, key, sample)
    chosen = _layers(captured, query, key, sample, layers)
    total = torch.zeros(len(rows), len(keys), dtype=torch.float64)
    for layer in chosen:
        parts = [weights[:, :, keys].mean(1).double().cpu() for _, weights in captured.pieces(layer, rows)]
        total += torch.cat(parts) / len(chosen)
    share = total.sum(1)
    layout = captured.layout
    return TokenAttention(
        query=query,
        key=key,
        query_labels=tuple(captured.label(int(i)) for i in rows),
        key_labels=tuple(captured.label(int(i)) for i in keys),
        weights=(total / share.clamp(min=1e-12)[:, None]).numpy(),
        share=share.numpy(),
        query_time=layout.time[rows].cpu().numpy(),
        time=layout.time[keys].cpu().numpy(),
        row=layout.row[keys].cpu().numpy(),
        col=layout.col[keys].cpu().numpy(),
        layers=chosen,
    )


def word_spans(time: np.ndarray) -> list[slice]:
    """Which tokens make up each word of a text: the pieces of one word share its time."""
    starts = np.flatnonzero(np.diff(time, prepend=-1.0)).tolist()
    return [slice(a, b) for a, b in pairwise([*starts, len(time)])]


def by_word(view: TokenAttention) -> TokenAttention:
    """The same with the pieces of each word taken together (means)."""
    spans = word_spans(view.query_time)
    return dataclasses.replace(
        view,
        query_labels=tuple("".join(view.query_labels[span]) for span in spans),
        weights=np.stack([view.weights[span].mean(0) for span in spans]),
        share=np.array([view.share[span].mean() for span in spans]),
        query_time=np.array([view.query_time[span][0] for span in spans]),
    )


def temporal(
    captured: Capture,
    query: str,
    key: str,
    *,
    sample: int = 0,
    bins: int = 24,
    layers: Sequence[int] | None = None,
) -> TemporalAttention:
    """Attention between two modalities, binned by the seconds of query and key.

    Bins are of equal length from 0 to the end of each modality. A token lasts until the next moment of
    its modality and is shared out among the bins that it covers: few words leave no gaps among many bins.
    """
    rows, keys = _pair(captured, query, key, sample)
    chosen = _layers(captured, query, key, sample, layers)
    time = captured.layout.time.cpu().double()
    query_edges, query_bins = _cover(time[rows], bins)
    key_edges, key_bins = _cover(time[keys], bins)
    total = torch.zeros(bins, bins, dtype=torch.float64)
    for layer in chosen:
        start = 0
        for piece, weights in captured.pieces(layer, rows):
            heard = weights[:, :, keys].mean(1).double().cpu() @ key_bins
            total += query_bins[start : start + len(piece)].T @ heard
            start += len(piece)
    shares = total / total.sum(1, keepdim=True).clamp(min=1e-12)
    return TemporalAttention(query, key, query_edges.numpy(), key_edges.numpy(), shares.numpy(), chosen)


def head_statistics(captured: Capture, *, sample: int | None = None) -> HeadStatistics:
    """What each head does: stays or crosses, spreads or points, looks near or far."""
    shape = (len(captured.layers), captured.heads)
    own, entropy, distance = (np.zeros(shape) for _ in range(3))
    time, modality = captured.layout.time, captured.layout.modality
    tokens = captured.tokens_of(sample)
    for layer in range(len(captured.layers)):
        for piece, weights in captured.pieces(layer, tokens):
            same = modality[piece][:, None] == modality[None, :]
            own[layer] += (weights * same[:, None]).sum((0, 2)).cpu().numpy()
            seconds = (time[piece][:, None] - time[None, :]).abs()
            distance[layer] += (weights * seconds[:, None]).sum((0, 2)).cpu().numpy()
            nats = torch.special.entr(weights).sum(-1)
            most = captured.mask(layer, piece).sum(-1).clamp(min=2).log()
            entropy[layer] += (nats / most[:, None]).sum(0).cpu().numpy()
    count = max(1, len(tokens))
    return HeadStatistics(own / count, 1 - own / count, entropy / count, distance / count)


def on_grid(values: np.ndarray, row: np.ndarray, col: np.ndarray) -> np.ndarray:
    """Values of a picture's patches, put at their places. (..., K) -> (..., rows, cols)"""
    r, c = np.rint(row).astype(int), np.rint(col).astype(int)
    grid = np.zeros((*values.shape[:-1], r.max() + 1, c.max() + 1))
    for k, (i, j) in enumerate(zip(r, c, strict=True)):
        grid[..., i, j] += values[..., k]  # frames of a video share places: they add up
    return grid


def _by_slice(values: Tensor, columns: Sequence[slice]) -> Tensor:
    """Sums over each modality's keys. (..., T) -> (..., M) float64 on the CPU"""
    return torch.stack([values[..., part].sum(-1) for part in columns], -1).double().cpu()


def _pair(captured: Capture, query: str, key: str, sample: int) -> tuple[Tensor, Tensor]:
    rows, keys = captured.tokens_of(sample, query), captured.tokens_of(sample, key)
    for name, found in ((query, rows), (key, keys)):
        if not len(found):
            raise ConfigError(f"explain: sample {sample} has no tokens of modality {name!r}.")
    return rows, keys


def _layers(
    captured: Capture, query: str, key: str, sample: int, layers: Sequence[int] | None
) -> tuple[int, ...]:
    chosen = captured.layers_between(query, key, sample) if layers is None else tuple(layers)
    if not chosen or not all(0 <= layer < len(captured.layers) for layer in chosen):
        raise ConfigError(
            f"explain: {query!r} and {key!r} meet in no layer that was asked for. "
            f"They meet in layers {list(captured.layers_between(query, key, sample))} "
            f"of 0..{len(captured.layers) - 1}; a model with attend=('global',) lets them meet in all."
        )
    return chosen


def _cover(time: Tensor, bins: int) -> tuple[Tensor, Tensor]:
    """Edges of the bins, (bins + 1,), and which part of each token lies in which bin, (n, bins)."""
    moments, place = time.unique(return_inverse=True)
    steps = moments.diff()
    last = float(steps.median()) if len(steps) else 1e-3
    begin = moments.clone()
    if float(begin[0]) < last:
        begin[0] = 0.0  # a window's time may be its middle
    end = torch.cat([moments[1:], moments[-1:] + last])
    edges = torch.linspace(0.0, float(end[-1]), bins + 1, dtype=torch.float64)
    within = torch.minimum(end[:, None], edges[1:]) - torch.maximum(begin[:, None], edges[:-1])
    within = within.clamp(min=0)
    return edges, (within / within.sum(1, keepdim=True))[place]
