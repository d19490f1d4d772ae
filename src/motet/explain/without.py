"""What the answer is without each modality: the plainest check on any view."""

from __future__ import annotations

import numpy as np
import torch

from motet.explain.capture import Score
from motet.explain.faithfulness import shortened
from motet.explain.rollout import Importance
from motet.model import Motet
from motet.types import Output, TokenBatch


def without_each(
    model: Motet, batch: TokenBatch, importance: Importance, score: Score
) -> tuple[dict[str, float], Output]:
    """One sample's score as it is ("") and without each of its modalities; the outputs, in that order.

    A modality that is the only one is not left out.
    """
    names = np.array(importance.modality)
    several = [name for name in dict.fromkeys(importance.modality) if not (names == name).all()]
    keep = np.stack([np.full(len(names), True), *(names != name for name in several)])
    with torch.no_grad():
        output = model(shortened(batch, importance.token, torch.from_numpy(keep)))
    values = score(output).double().cpu().tolist()
    return dict(zip(["", *several], values, strict=True)), output
