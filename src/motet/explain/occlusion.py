"""Leave tokens out and see what changes: for similarities, where no attention tells the whole story.

Features of a pretrained encoder may reach the shared space past every attention layer; what is left
out is missing on that way too.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from motet.explain.capture import Capture, Score, capture
from motet.explain.faithfulness import scores_of, shortened
from motet.explain.rollout import Importance, importance_of
from motet.explain.views import View
from motet.model import Motet
from motet.types import Output, TokenBatch

MOST = 128  # pieces of one sample that are left out one by one; longer samples go in neighbours


@dataclasses.dataclass(frozen=True, eq=False)
class Meeting(View):
    """Which tokens of a query and a result make them similar.

    query (Q,), result (R,): what the cosine loses without that token (below zero: it gains).
    together (Q, R): the second difference, cos - cos without q - cos without r + cos without both:
    above zero where the two tokens are good for the cosine only with each other.
    """

    cosine: float
    query_labels: tuple[str, ...]
    query_modality: tuple[str, ...]
    result_labels: tuple[str, ...]
    result_modality: tuple[str, ...]
    query: np.ndarray
    result: np.ndarray
    together: np.ndarray
    result_row: np.ndarray
    result_col: np.ndarray


def leave_one_out(model: Motet, batch: TokenBatch, captured: Capture, score: Score) -> Importance:
    """What the score of the first sample loses without each token.

    Samples of more than MOST tokens are left out in runs of neighbours, which share the loss.
    """
    tokens = captured.tokens_of(0)
    names = captured.layout.modalities
    modality = tuple(names[m] for m in captured.layout.modality[tokens].tolist())
    parts = _parts(modality)
    keep = np.ones((len(parts) + 1, len(tokens)), dtype=bool)
    for i, part in enumerate(parts):
        keep[i + 1, part] = False
    values = scores_of(model, batch, tokens.cpu().numpy(), keep, score)
    signed = torch.zeros(captured.layout.tokens, dtype=torch.float64)
    for part, value in zip(parts, values[1:], strict=True):
        signed[tokens[part].cpu()] = (values[0] - value) / len(part)
    return importance_of("leave one out", captured, 0, signed)


def place(output: Output) -> Tensor:
    """Where each sample lies in the shared space: the normalised sum over its modalities. (B, E)"""
    return _unit(torch.stack(list(output.embeddings.values())).sum(0))


def kept_place(output: Output) -> Score:
    """The cosine between where a shortened first sample lies and where the whole one does."""
    whole = place(output)[0].detach()

    def score(said: Output) -> Tensor:
        return place(said) @ whole

    return score


def meeting(
    model: Motet, query: TokenBatch, result: TokenBatch, *, result_modality: str | None = None
) -> Meeting:
    """Which tokens of a query met which of a result; both are batches of one sample.

    result_modality: compare with this modality of the result only, as a search by it does.
    """
    q, r = capture(model, query), capture(model, result)
    q_vectors, q_parts = _vectors(model, query, q, None)
    r_vectors, r_parts = _vectors(model, result, r, result_modality)
    cosines = q_vectors @ r_vectors.T
    whole, no_query, no_result = cosines[0, 0], cosines[1:, :1], cosines[:1, 1:]
    r_tokens = np.array([part[0] for part in r_parts])
    return Meeting(
        cosine=float(whole),
        query_labels=tuple(_label(q, part) for part in q_parts),
        query_modality=tuple(_name(q, part) for part in q_parts),
        result_labels=tuple(_label(r, part) for part in r_parts),
        result_modality=tuple(_name(r, part) for part in r_parts),
        query=whole - no_query[:, 0],
        result=whole - no_result[0],
        together=whole - no_query - no_result + cosines[1:, 1:],
        result_row=r.layout.row[r_tokens].cpu().numpy(),
        result_col=r.layout.col[r_tokens].cpu().numpy(),
    )


def _vectors(
    model: Motet, batch: TokenBatch, captured: Capture, modality: str | None
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The place of the whole sample and of it without each part, (1 + parts, E), and the parts' tokens."""
    tokens = captured.tokens_of(0, modality)
    names = tuple(captured.layout.modalities[m] for m in captured.layout.modality[tokens].tolist())
    parts = _parts(names)
    keep = torch.ones(len(parts) + 1, len(tokens), dtype=torch.bool)
    for i, part in enumerate(parts):
        keep[i + 1, part] = False
    with torch.no_grad():
        found = model.encode(shortened(batch, tokens.cpu().numpy(), keep))
    vectors = _unit(torch.stack(list(found.values())).sum(0))
    return vectors.double().cpu().numpy(), [tokens.cpu().numpy()[part] for part in parts]


def _parts(modality: tuple[str, ...]) -> list[np.ndarray]:
    """Runs of neighbouring tokens of one modality, about MOST in all, single tokens if so few."""
    names = np.array(modality)
    size = -(-len(names) // MOST)
    found = [np.flatnonzero(names == name) for name in dict.fromkeys(modality)]
    return [part for places in found for part in np.split(places, range(size, len(places), size))]


def _unit(vectors: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vectors, dim=-1)


def _label(captured: Capture, part: np.ndarray) -> str:
    first = captured.label(int(part[0]))
    return first if len(part) == 1 else f"{first} \u2026 {captured.label(int(part[-1]))}"


def _name(captured: Capture, part: np.ndarray) -> str:
    return captured.layout.modalities[int(captured.layout.modality[int(part[0])])]
