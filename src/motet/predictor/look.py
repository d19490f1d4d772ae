"""One entry explained: what `Predictor.explain` and the demo's report show."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from motet import config
from motet.data.collate import collate
from motet.data.columns import modality_name
from motet.data.paths import resolve_media
from motet.errors import ConfigError, DataError
from motet.explain.item import Explained, Media, explain_sample
from motet.explain.occlusion import meeting
from motet.predictor.cells import Broken, read_entries
from motet.predictor.inputs import Entry, entry_of, is_table
from motet.predictor.predictor import Predictor
from motet.types import TokenBatch

if TYPE_CHECKING:
    from motet.index import Index


def explain_entry(
    predictor: Predictor,
    entry: Entry,
    *,
    truth: str = "",
    against: Entry | None = None,
    against_modality: str | None = None,
) -> Explained:
    """Where the model looked, as numbers. `truth` is the right answer, where it is known.

    against: a result of a search for this entry, compared by all its modalities or by one.

    Raises:
        DataError: the entry cannot be read, or is empty.
    """
    batch = _batch(predictor, entry)
    explained = explain_sample(predictor.model, batch, _shown(predictor, entry), truth=truth)
    if against is None:
        return explained
    found = meeting(predictor.model, batch, _batch(predictor, against), result_modality=against_modality)
    return replace(explained, meeting=found, against=_shown(predictor, against))


def one_entry(predictor: Predictor, input: Any, row: str | None) -> Entry:
    """An input to explain; of a table, the row with this id, else its first.

    Raises:
        ConfigError: no such row, or no modality for the input.
        DataError: the input cannot be read.
    """
    if not is_table(input):
        if row is not None:
            raise ConfigError(f"row {row!r}: only a table has rows; the input is one thing.")
        return entry_of(input, predictor.processors)
    entries = predictor.entries(input)
    found = entries[0] if row is None else next((entry for entry in entries if entry.id == row), None)
    if found is None:
        raise ConfigError(f"{input}: no row has the id {row!r}.")
    return found


def result_of(predictor: Predictor, index: Index, id: str) -> Entry:
    """A row of an index as the model sees it, read from its fields.

    Raises:
        ConfigError: no such row, or its fields name nothing that the model can use.
    """
    row = index.get(id)
    if row is None:
        raise ConfigError(f"{index.path}: no row has the id {id!r}. `motet search --json` prints the ids.")
    names = {modality_name(name): name for name in row.fields}
    cells = {
        m: row.fields[names[m]] for m in predictor.processors if row.fields.get(names.get(m, "")) is not None
    }
    return entry_of(cells, predictor.processors, where=f"{index.path}, row {id}")


def _batch(predictor: Predictor, entry: Entry) -> TokenBatch:
    sample = read_entries([entry], predictor.processors, predictor.cache)[0]
    if isinstance(sample, Broken):
        raise DataError(f"{entry.where}: {sample.error}", rule=sample.error.rule)
    if not sample.pieces:
        raise DataError(f"{entry.where}: nothing in it that the model can use.")
    return collate([sample], predictor.model.config.modalities, {}, labels=True).to(predictor.device)


def _shown(predictor: Predictor, entry: Entry) -> dict[str, Media]:
    note = "synthesised speech" if _synthesised(predictor) else ""
    shown = {m: _media(entry, m, p.kind) for m, p in predictor.processors.items() if m in entry.cells}
    kinds = {m: p.kind for m, p in predictor.processors.items()}
    return {m: replace(media, note=note) if kinds[m] == "audio" else media for m, media in shown.items()}


def _synthesised(predictor: Predictor) -> bool:
    """Whether the maker of the training table says that its speech is synthesised."""
    path = predictor.folder / "metrics.json"
    said = config.read(path).get("dataset", {}) if path.is_file() else {}
    return "synthesi" in f"{said.get('name', '')} {said.get('note', '')}".lower()


def _media(entry: Entry, modality: str, kind: str) -> Media:
    """What a page shows of a cell."""
    cell = entry.cells[modality]
    if kind == "text":
        return Media(text=str(cell))
    if isinstance(cell, str | Path) and kind != "features":
        return Media(file=cell if isinstance(cell, Path) else resolve_media(cell, entry.root, entry.where))
    return Media()
