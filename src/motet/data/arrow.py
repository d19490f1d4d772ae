"""Parquet, Arrow and Feather files, and folders saved by Hugging Face `datasets`: rows from mapped files.

Parquet and compressed Arrow cannot be read row by row; above SMALL bytes they are written once as
plain Arrow files into the cache folder and mapped from there, so that memory stays flat.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.compute
import pyarrow.ipc
import pyarrow.parquet

from motet.config import parse_json
from motet.config import read as read_config
from motet.data.blob import Blob
from motet.data.rows import BLOCK, Cell, Rows, looks_like_list, plain_cell
from motet.errors import ConfigError, DataError, StorageError

SMALL = 32 * 2**20  # bytes that may be held in memory
CHECKED = 256 * 2**20  # bytes up to which every value is checked when a table is opened
_DAMAGE = (pyarrow.ArrowException, OSError, ValueError)


class ArrowRows(Rows):
    """Rows of an Arrow table, which may lie in mapped files.

    Binary cells, and structs {bytes, path} as Hugging Face `datasets` writes media, become Blobs (or
    the path, where there are no bytes). `words`: column -> names of its integer classes.
    """

    def __init__(self, table: pyarrow.Table, words: dict[str, list[str]] | None = None) -> None:
        self.table, self.names = table, tuple(table.column_names)
        self.words = words or {}
        self._columns = {name: table.column(name) for name in self.names}
        self._media = {name for name, column in self._columns.items() if _is_media(column.type)}
        self._lists = {name for name, column in self._columns.items() if _holds_lists(column)}

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def cell(self, i: int, name: str) -> Cell:
        scalar = self._columns[name][i]
        if name in self._media or name in self.words:
            return self._cell(scalar, i, name)
        return self._plain(scalar.as_py(), name)

    def iterate(self, names: Sequence[str]) -> Iterator[tuple[Cell, ...]]:
        for start in range(0, len(self), BLOCK):
            block = [self._block(name, start) for name in names]
            yield from zip(*block, strict=True)

    def _block(self, name: str, start: int) -> list[Cell]:
        part = self._columns[name].slice(start, BLOCK)
        if name in self._media or name in self.words:
            return [self._cell(scalar, start + k, name) for k, scalar in enumerate(part)]
        return [self._plain(value, name) for value in part.to_pylist()]

    def _cell(self, scalar: Any, i: int, name: str) -> Cell:
        if not scalar.is_valid:
            return None
        if name in self.words:
            number, known = scalar.as_py(), self.words[name]
            return known[number] if 0 <= number < len(known) else None
        if _is_binary(scalar.type):
            return Blob(f"{name} of row {i + 1}", scalar.as_buffer())
        path: str | None = scalar["path"].as_py()
        if scalar["bytes"].is_valid:
            return Blob(path or f"{name} of row {i + 1}", scalar["bytes"].as_buffer())
        return path or None

    def _plain(self, value: Any, name: str) -> Cell:
        cell: Cell = plain_cell(value)
        return parse_json(cell, where="list") if name in self._lists and isinstance(cell, str) else cell


def _is_binary(kind: pyarrow.DataType) -> bool:
    types = pyarrow.types
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind))


def _is_media(kind: pyarrow.DataType) -> bool:
    if not pyarrow.types.is_struct(kind):
        return _is_binary(kind)
    fields = {kind.field(k).name: kind.field(k).type for k in range(kind.num_fields)}
    return fields.keys() == {"bytes", "path"} and _is_binary(fields["bytes"])


def _holds_lists(column: pyarrow.ChunkedArray) -> bool:
    """Whether every text of a column of texts is a JSON list."""
    types = pyarrow.types
    if not (types.is_string(column.type) or types.is_large_string(column.type)):
        return False
    found = False
    for start in range(0, len(column), BLOCK):
        for text in column.slice(start, BLOCK).to_pylist():
            if text is None or not text.strip():
                continue
            try:
                if not looks_like_list(text):
                    return False
                parse_json(text, where="list")
            except ConfigError:
                return False
            found = True
    return found


def read_parquet(path: Path, fingerprint: str) -> ArrowRows:
    """Raises DataError where it is no readable Parquet, StorageError where the cache has no space."""
    try:
        file = pyarrow.parquet.ParquetFile(path, memory_map=True, pre_buffer=False)
        raw = sum(file.metadata.row_group(g).total_byte_size for g in range(file.num_row_groups))
        if max(path.stat().st_size, raw) <= SMALL:
            return ArrowRows(_checked(file.read(), path))
        batches = file.iter_batches(batch_size=BLOCK, use_threads=False)
        return ArrowRows(_checked(_mapped_copy(file.schema_arrow, batches, fingerprint, raw), path))
    except _DAMAGE as error:
        raise _damaged(path, "Parquet", error) from None


def read_arrow(path: Path, fingerprint: str) -> ArrowRows:
    """An Arrow IPC file or stream, or Feather.

    Raises:
        DataError: neither of these, or damaged.
        StorageError: the cache has no space for a large compressed one.
    """
    return ArrowRows(open_ipc(path, fingerprint))


def open_ipc(path: Path, fingerprint: str) -> pyarrow.Table:
    """The table in an Arrow file, mapped where it is not compressed. Raises as `read_arrow`."""
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path}: empty file. Write it again.")
        source = pyarrow.memory_map(str(path))
        if source.read(6) != b"ARROW1":
            source.seek(0)
            reader = pyarrow.ipc.open_stream(source)
            return _checked(reader.read_all(), path)
        reader = pyarrow.ipc.open_file(source)
        if path.stat().st_size > SMALL and reader.num_record_batches and _allocates(reader):
            batches = (reader.get_batch(k) for k in range(reader.num_record_batches))
            return _checked(_mapped_copy(reader.schema, batches, fingerprint, 0), path)
        return _checked(reader.read_all(), path)
    except _DAMAGE as error:
        raise _damaged(path, "Arrow", error) from None


def _allocates(reader: pyarrow.ipc.RecordBatchFileReader) -> bool:
    """Whether a batch is decompressed into memory in place of being mapped."""
    before = pyarrow.total_allocated_bytes()
    batch = reader.get_batch(0)
    return bool(pyarrow.total_allocated_bytes() - before > batch.nbytes // 2)


def _checked(table: pyarrow.Table, path: Path) -> pyarrow.Table:
    twice = [name for name in table.column_names if table.column_names.count(name) > 1]
    if twice:
        raise DataError(f"{path}: the column {twice[0]!r} stands twice. Rename one.")
    table.validate(full=table.nbytes <= CHECKED)
    return table


def _damaged(path: Path, what: str, error: BaseException) -> DataError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return DataError(f"{path}: not a readable {what} file: {reason}. Write it again.")


def _mapped_copy(
    schema: pyarrow.Schema, batches: Iterator[pyarrow.RecordBatch], fingerprint: str, size: int
) -> pyarrow.Table:
    """The batches as a plain Arrow file in the cache, mapped. Made once for each fingerprint."""
    from motet.data.cache import default_cache

    target = default_cache() / "tables" / f"{fingerprint}.arrow"
    if not target.is_file():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(target.parent).free < size:
                raise OSError(28, "No space left on device")
            handle, name = tempfile.mkstemp(dir=target.parent, suffix=".tmp")
        except OSError as error:
            raise _no_space(target, error) from None
        try:
            with os.fdopen(handle, "wb") as file, pyarrow.ipc.new_file(file, schema) as writer:
                for batch in batches:
                    writer.write_batch(batch)
            os.replace(name, target)
        except OSError as error:
            if error.errno is None:  # damage found while reading
                raise
            raise _no_space(target, error) from None
        finally:
            Path(name).unlink(missing_ok=True)
    return pyarrow.ipc.open_file(pyarrow.memory_map(str(target))).read_all()


def _no_space(target: Path, error: OSError) -> StorageError:
    return StorageError(
        f"{target.parent}: a large table is kept here as a plain Arrow file, which cannot be written: "
        f"{error.strerror}. MOTET_CACHE names another folder."
    )


def is_saved_dataset(folder: Path) -> bool:
    """Whether `datasets` wrote this folder by save_to_disk."""
    return any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))


def saved_files(folder: Path) -> dict[str | None, list[Path]]:
    """Part ("train", ...; None where there is one only) -> the Arrow files of it.

    Raises:
        DataError: a file that is named but missing or outside the folder.
    """
    if not (folder / "dataset_dict.json").is_file():
        return {None: _data_files(folder)}
    parts = _json(folder / "dataset_dict.json").get("splits")
    if not isinstance(parts, list) or not all(_is_plain(part) for part in parts) or not parts:
        raise DataError(f"{folder}/dataset_dict.json: names no parts. Save the data set again.")
    return {part: _data_files(folder / part) for part in parts}


def _data_files(folder: Path) -> list[Path]:
    entries = _json(folder / "state.json").get("_data_files")
    names = [entry.get("filename") for entry in entries or () if isinstance(entry, dict)]
    paths = [folder / str(name) for name in names if _is_plain(name)]
    if not paths or len(paths) != len(names) or not all(p.is_file() and not p.is_symlink() for p in paths):
        raise DataError(f"{folder}/state.json: names files that are not here. Save the data set again.")
    return paths


def _is_plain(name: Any) -> bool:
    return isinstance(name, str) and name not in ("", ".", "..") and not set(name) & set("/\\\0")


def _json(path: Path) -> dict[str, Any]:
    try:
        return read_config(path)
    except ConfigError as error:
        raise DataError(f"{error} Save the data set again.") from None


def read_saved_dataset(folder: Path, fingerprint: str) -> ArrowRows:
    """A folder written by `datasets` (save_to_disk), its parts one below the other with a `split` column.

    Raises:
        DataError: files missing or damaged, or parts with different columns.
    """
    tables: list[pyarrow.Table] = []
    words: dict[str, list[str]] = {}
    for part, files in saved_files(folder).items():
        home = files[0].parent
        info = _json(home / "dataset_info.json") if (home / "dataset_info.json").is_file() else {}
        words |= class_words(info.get("features"))
        table = pyarrow.concat_tables([open_ipc(path, f"{fingerprint}-{path.stem}") for path in files])
        if part is not None and "split" not in table.column_names:
            table = table.append_column("split", pyarrow.array([part] * len(table)))
        tables.append(table)
    return joined(tables, words, folder)


def joined(tables: Sequence[pyarrow.Table], words: dict[str, list[str]], where: Path) -> ArrowRows:
    """Tables of the same columns as one. Raises DataError where columns differ."""
    try:
        plain = [table.replace_schema_metadata(None) for table in tables]
        return ArrowRows(_checked(pyarrow.concat_tables(plain), where), words)
    except pyarrow.ArrowInvalid:
        raise DataError(f"{where}: its parts have different columns. Open one of them alone.") from None


def class_words(features: Any) -> dict[str, list[str]]:
    """Columns whose integers stand for named classes (`ClassLabel` of `datasets`)."""
    found = {}
    for name, feature in features.items() if isinstance(features, dict) else ():
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel":
            known = feature.get("names")
            if isinstance(known, list) and all(isinstance(word, str) for word in known):
                found[name] = known
    return found
