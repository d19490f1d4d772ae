"""What a model is trained on, each loss masked where data miss.

All of them are computed in float32 at least, also under autocast, and give exactly 0 with zero
gradients where nothing is present.
"""

from motet.losses.contrastive import contrastive_loss, sigmoid_loss
from motet.losses.objective import LossConfig, Objective
from motet.losses.supervised import (
    IGNORE,
    balanced_class_weights,
    classification_loss,
    guess_loss,
    multilabel_loss,
    regression_loss,
)

__all__ = [
    "IGNORE",
    "LossConfig",
    "Objective",
    "balanced_class_weights",
    "classification_loss",
    "contrastive_loss",
    "guess_loss",
    "multilabel_loss",
    "regression_loss",
    "sigmoid_loss",
]
