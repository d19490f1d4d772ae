"""The media of a converted table."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]


class MediaWriter:
    """Writes media under the folder of the table; `notes` is what people should know."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.notes: list[str] = []

    def features(self, column: str, id: str, values: np.ndarray) -> str | None:
        """The path of an .npy file; None where nothing was measured."""
        if not len(values):
            return None
        path = Path(column) / f"{_plain(id)}.npy"
        (self.root / column).mkdir(parents=True, exist_ok=True)
        np.save(self.root / path, np.ascontiguousarray(values, np.float32), allow_pickle=False)
        return str(path)

    def media(self, column: str, source: Path) -> str:
        """The path of the same file under the table: linked where that is possible, else copied."""
        path = Path(column) / _plain(source.name)
        (self.root / column).mkdir(parents=True, exist_ok=True)
        real = source.resolve()
        try:
            os.link(real, self.root / path)
        except OSError:
            shutil.copyfile(real, self.root / path)
        return str(path)


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).lstrip(".") or "_"
