"""What a reader can point at: words, patches, stretches of seconds; and which of them hear which."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import torch

from motet.explain.capture import Capture
from motet.explain.rollout import Importance
from motet.explain.views import View, word_spans
from motet.types import Kind

MOST = {"image": 256, "video": 384}  # units of one modality; more tokens are taken together
MOST_ELSE = 128


@dataclasses.dataclass(frozen=True, eq=False)
class Units(View):
    """Tokens of one sample, taken together to what can be pointed at, in the model's order of modalities.

    start, end: seconds; end is where the next unit begins. row, col: place in the picture's grid of units.
    tokens: how many. answer: (U,) how much of what reached the answer came through each, adding up to
    one. weights: (U, U), how the attention of a unit's tokens (rows, means) divides over all units; rows
    add up to one. Means over heads and over `layers`, those in which modalities can hear each other.
    """

    modality: tuple[str, ...]
    labels: tuple[str, ...]
    start: np.ndarray
    end: np.ndarray
    row: np.ndarray
    col: np.ndarray
    tokens: np.ndarray
    answer: np.ndarray
    weights: np.ndarray
    layers: tuple[int, ...]

    def of(self, modality: str) -> np.ndarray:
        """Which units belong to this modality. (u,) indices"""
        return np.flatnonzero(np.array(self.modality) == modality)

    def share(self, modality: str) -> np.ndarray:
        """The part of each unit's attention that goes to this modality. (U,)"""
        return self.weights[:, self.of(modality)].sum(1)


def units(captured: Capture, importance: Importance, kinds: Mapping[str, Kind], *, sample: int = 0) -> Units:
    """Which unit of a sample hears which. Nothing of tokens x tokens is held."""
    names, parts = [], []
    for name in captured.present(sample):
        found = _parts(captured, captured.tokens_of(sample, name), kinds[name])
        names += [name] * len(found)
        parts += found
    layers = captured.mixing_layers or tuple(range(len(captured.layers)))
    place = torch.full((captured.layout.tokens,), -1, dtype=torch.long)
    for u, part in enumerate(parts):
        place[part] = u
    value = np.zeros(captured.layout.tokens)
    value[importance.token] = importance.value
    time, row, col = (
        t.cpu().numpy() for t in (captured.layout.time, captured.layout.row, captured.layout.col)
    )
    start = np.array([time[part].min() for part in parts], dtype=np.float64)
    for name in dict.fromkeys(names):
        if kinds[name] == "audio":  # a window's time is its middle
            here = np.array(names) == name
            start[here] -= start[here].min()
    return Units(
        modality=tuple(names),
        labels=tuple(_label(captured, part, kinds[name]) for name, part in zip(names, parts, strict=True)),
        start=start,
        end=_ends(np.array(names), start, np.array([len(part) for part in parts])),
        row=_ranks(np.array(names), np.array([row[part].min() for part in parts])),
        col=_ranks(np.array(names), np.array([col[part].min() for part in parts])),
        tokens=np.array([len(part) for part in parts]),
        answer=np.array([value[part].sum() for part in parts]),
        weights=_heard(captured, place, len(parts), layers),
        layers=layers,
    )


def _heard(captured: Capture, place: torch.Tensor, count: int, layers: tuple[int, ...]) -> np.ndarray:
    """Mean attention between units. place: (T,) the unit of each token, -1 outside the sample."""
    tokens = (place >= 0).nonzero()[:, 0]
    total = torch.zeros(count, count, dtype=torch.float64)
    size = torch.bincount(place[tokens], minlength=count).clamp(min=1)
    for layer in layers:
        for piece, weights in captured.pieces(layer, tokens):
            mean = weights[:, :, tokens].mean(1).double().cpu()
            by_unit = torch.zeros(len(piece), count, dtype=torch.float64)
            by_unit.index_add_(1, place[tokens], mean)
            total.index_add_(0, place[piece.cpu()], by_unit)
    total /= size[:, None] * len(layers)
    return (total / total.sum(1, keepdim=True).clamp(min=1e-12)).numpy()


def _parts(captured: Capture, tokens: torch.Tensor, kind: Kind) -> list[np.ndarray]:
    """The tokens of one modality, unit by unit."""
    layout, index = captured.layout, tokens.cpu().numpy()
    time = layout.time[tokens].cpu().numpy()
    if kind == "text":
        return [index[span] for span in word_spans(time)]
    if kind in MOST:
        row, col = (t[tokens].cpu().numpy().astype(int) for t in (layout.row, layout.col))
        block = 1
        while True:
            places = [row // block, col // block] if kind == "image" else [time, row // block, col // block]
            keys, inverse = np.unique(np.stack(places), axis=1, return_inverse=True)
            if keys.shape[1] <= MOST[kind] or block > max(row.max(), col.max()):
                break
            block += 1
        return [index[inverse.ravel() == key] for key in range(keys.shape[1])]
    size = -(-len(index) // MOST_ELSE)
    return np.split(index, range(size, len(index), size))


def _label(captured: Capture, part: np.ndarray, kind: Kind) -> str:
    if kind == "text":
        return "".join(captured.label(int(t)) for t in part)
    first, last = captured.label(int(part[0])), captured.label(int(part[-1]))
    if first == last:
        return first
    if kind == "audio" and "-" in first:
        return f"{first.split('-')[0]}-{last.split('-')[-1]}"
    moment, _, place = last.partition(" s, ")
    return f"{first} to {place if place and first.startswith(moment) else last}"


def _ends(names: np.ndarray, start: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Where the next moment of the same modality begins; the last lasts as its tokens suggest."""
    end = start.copy()
    for name in dict.fromkeys(names.tolist()):
        here = names == name
        moments = np.unique(start[here])
        if len(moments) > 1:
            step = float(moments[-1] - moments[-2]) * tokens[here][-1] / tokens[here][0]
            following = np.append(moments[1:], moments[-1] + step)
            end[here] = following[np.searchsorted(moments, start[here])]
    return end


def _ranks(names: np.ndarray, values: np.ndarray) -> np.ndarray:
    """0, 1, ... for the first, second, ... row of each modality's grid."""
    out = np.zeros(len(values), dtype=int)
    for name in dict.fromkeys(names.tolist()):
        here = names == name
        out[here] = np.unique(values[here], return_inverse=True)[1]
    return out
