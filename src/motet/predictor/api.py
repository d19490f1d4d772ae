"""`motet.fit` and `motet.load`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from motet.predictor.predictor import Predictor


def load(folder: str | Path, *, device: str = "auto") -> Predictor:
    """The model in a folder; see `Predictor.load`."""
    return Predictor.load(folder, device=device)


def fit(
    table: str | Path,
    *,
    label: str | None = None,
    val: str | Path | None = None,
    out: str | Path | None = None,
    settings: Sequence[str] = (),
    preset: str = "fast",
    seed: int = 0,
    time_limit: float | None = None,
    resume: bool = False,
    retrieval: bool | None = None,
    device: str = "auto",
) -> Predictor:
    """Train a model on a table and load it; for the arguments and errors see `motet.train.fit.fit`."""
    from motet.train.fit import fit as train

    folder = train(
        table,
        label=label,
        val=val,
        out=out,
        settings=settings,
        preset=preset,
        seed=seed,
        time_limit=time_limit,
        resume=resume,
        retrieval=retrieval,
    )
    return Predictor.load(folder, device=device)
