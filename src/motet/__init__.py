"""Motet: every modality has its own transformer weights, and all of them listen to each other.

    model = motet.fit("train.csv", label="sentiment", out="runs/clips")
    model.predict("clip.mp4")
    index = motet.Index.create("shop.index", model)

The names below are loaded when they are first used: `import motet` does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from motet.errors import MotetError
    from motet.index import Index
    from motet.model import Motet, MotetConfig
    from motet.predictor import Predictor, fit, load
    from motet.tasks.sentiment import SentimentAnalyzer
    from motet.types import Hit

__version__ = "0.1.0"
__all__ = [
    "Hit",
    "Index",
    "Motet",
    "MotetConfig",
    "MotetError",
    "Predictor",
    "SentimentAnalyzer",
    "fit",
    "load",
]

_HOME = {
    "Hit": "motet.types",
    "Index": "motet.index",
    "Motet": "motet.model",
    "MotetConfig": "motet.model",
    "MotetError": "motet.errors",
    "Predictor": "motet.predictor",
    "SentimentAnalyzer": "motet.tasks.sentiment",
    "fit": "motet.predictor",
    "load": "motet.predictor",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'motet' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
