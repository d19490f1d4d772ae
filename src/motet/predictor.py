"""A trained model in use: predict, encode, evaluate, explain. What the command line and servers call."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from motet.checkpoint import Folder, load_folder, load_state
from motet.config import from_dict
from motet.data.cache import FeatureCache, default_cache
from motet.data.collate import collate
from motet.data.columns import Columns, infer_columns, modality_name
from motet.data.dataset import Dataset
from motet.data.folder import SPLITS
from motet.data.paths import resolve_media
from motet.data.processor import Processor, load_processor
from motet.data.quarantine import Quarantine
from motet.data.table import Table, open_table
from motet.errors import ConfigError, DataError
from motet.inputs import Broken, Entry, TableEntries, entry_of, keys_of, read_entries
from motet.model import Motet, MotetConfig, TaskSpec
from motet.nn.backbones import load_encoder
from motet.types import Kind, Sample, TokenBatch

if TYPE_CHECKING:
    from motet.explain.item import Explained, Media
    from motet.explain.report import Explanation

Progress = Callable[[int, int, str], None]
BATCH = 64
TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")


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


def is_table(input: Any) -> bool:
    """Whether an input is a table or a folder of media, rather than one thing."""
    if not isinstance(input, str | Path) or len(str(input)) > 4096:
        return False
    return str(input).lower().endswith(TABLES) or Path(input).is_dir()


class Predictor:
    """A model with its processors, ready for inputs as people have them.

    An input is a text, the path of a file, a PIL picture, an array (a sound at 16 kHz, or a picture),
    or a mapping of column or modality to one of these, with any of them missing.
    """

    def __init__(
        self,
        model: Motet,
        processors: Mapping[str, Processor],
        columns: Columns,
        *,
        folder: Path,
        fingerprint: str,
    ) -> None:
        self.model = model.eval()
        self.processors = dict(processors)
        self.columns = columns
        self.folder = folder
        self.fingerprint = fingerprint
        self.cache = FeatureCache(default_cache())

    @classmethod
    def load(cls, folder: str | Path, *, device: str = "auto") -> Predictor:
        """Open a model folder, as `motet fit` wrote it.

        Raises:
            ConfigError: not a model folder; a device that is not there.
            DataError: the folder is damaged.
            MismatchError: an encoder that it was trained with is another one here.
        """
        stored = load_folder(folder)
        for name in ("config.json", "processors.json"):
            if name not in stored.documents:
                raise ConfigError(
                    f"{stored.path}: has no {name}, so it is not a model folder. Give the folder that "
                    "`motet fit` wrote, such as runs/NAME."
                )
        document = stored.documents["config.json"]
        config = from_dict(MotetConfig, document["model"], where=str(stored.path / "config.json"))
        columns = from_dict(Columns, document["columns"], where=str(stored.path / "config.json"))
        model = Motet(config)
        load_state(model, stored.tensors, where=stored.path)
        processors = {spec.name: _processor(stored, spec.name) for spec in config.modalities}
        model = model.to(_device(device))
        return cls(model, processors, columns, folder=stored.path, fingerprint=_fingerprint(stored))

    @property
    def modalities(self) -> tuple[str, ...]:
        return self.model.modalities

    @property
    def tasks(self) -> tuple[TaskSpec, ...]:
        return self.model.config.tasks

    @property
    def width(self) -> int:
        """E, the size of the shared space; 0 if the model was trained without one."""
        return self.model.config.embedding if self.model.config.contrastive else 0

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def supports(self, modality: str) -> bool:
        """Whether the model knows a modality, by its name or its kind ("audio")."""
        return modality in self.modalities or modality in {p.kind for p in self.processors.values()}

    # ---- predict

    def predict(self, input: Any) -> dict[str, Any]:
        """Of one input: {"label", "scores", "modalities", "status"}.

        label: the likeliest class, or the number; scores: class -> probability, empty for a number;
        modalities: those that were heard. A model of several tasks adds "tasks": name -> the same.

        Raises:
            ConfigError: the model was trained for retrieval only, or has no modality for this.
            DataError: the input cannot be read, or is empty.
        """
        result = next(self._predictions([entry_of(input, self.processors)], strict=True))
        if result["status"] == "missing":
            raise DataError("input: nothing in it that the model can use. Give at least one modality.")
        return {key: value for key, value in result.items() if key != "id"}

    def predict_table(self, table: str | Path | Table) -> Iterator[dict[str, Any]]:
        """Predict every row, in order, as it comes: what `predict` gives, with the row's "id".

        status: "ok"; "missing" for a row without any modality of the model; else what is wrong with it.
        """
        self._needs_task()
        return self._predictions(self.entries(table), strict=False)

    def _predictions(self, entries: Iterable[Entry], *, strict: bool) -> Iterator[dict[str, Any]]:
        self._needs_task()
        for number, (entry, sample, output, i) in enumerate(self._run(entries, self.model, strict=strict)):
            empty: dict[str, Any] = {
                "id": entry.id or str(number),
                "label": None,
                "scores": {},
                "modalities": [],
            }
            if isinstance(sample, Broken):
                yield empty | {"status": f"{entry.where}: column {sample.column!r}: {sample.error}"}
            elif output is None:
                yield empty | {"status": "missing"}
            else:
                answers = {t.name: _answer(t, output.predictions[t.name][i]) for t in self.tasks}
                more = {"tasks": answers} if len(answers) > 1 else {}
                heard = [m for m in self.modalities if m in sample.pieces]
                yield empty | answers[self.tasks[0].name] | {"modalities": heard, **more, "status": "ok"}

    def _needs_task(self) -> None:
        if not self.tasks:
            raise ConfigError(
                f"{self.folder}: was trained for retrieval only and predicts no label. "
                "Use `motet index` and `motet search`, or train with --label COLUMN."
            )

    # ---- encode

    def encode(self, inputs: Any, *, batch: int = BATCH) -> np.ndarray:
        """Unit vectors in the shared space: (N, E) float32 of a list, (E,) of one input.

        Of an input with several modalities it is the normalised sum of theirs.

        Raises:
            ConfigError: the model has no shared space, or no modality for an input.
            DataError: an input cannot be read, or is empty.
        """
        self._needs_space()
        single = not isinstance(inputs, Sequence) or isinstance(inputs, str | tuple)
        items = [inputs] if single else list(inputs)
        entries = [entry_of(item, self.processors, where=f"input {i}") for i, item in enumerate(items)]
        out = np.zeros((len(items), self.width), np.float32)
        for row, vectors in enumerate(self._vectors(entries, strict=True, batch=batch)):
            if not vectors or isinstance(vectors, Broken):
                raise DataError(f"input {row}: nothing in it that the model can encode.")
            total = np.sum(list(vectors.values()), axis=0)
            out[row] = total / max(float(np.linalg.norm(total)), 1e-12)
        return out[0] if single else out

    def encode_query(self, inputs: Any, *, batch: int = BATCH) -> np.ndarray:
        """What is looked for; in this model the same as `encode`."""
        return self.encode(inputs, batch=batch)

    def encode_document(self, inputs: Any, *, batch: int = BATCH) -> np.ndarray:
        """What is found; in this model the same as `encode`."""
        return self.encode(inputs, batch=batch)

    @staticmethod
    def similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Cosines (N, M) of unit vectors (N, E) and (M, E)."""
        return np.atleast_2d(a) @ np.atleast_2d(b).T

    def encode_entries(
        self, entries: Sequence[Entry], *, batch: int = BATCH
    ) -> list[dict[str, np.ndarray] | Broken]:
        """modality -> (E,) for each entry, empty where it has none, or why it cannot be read."""
        self._needs_space()
        return list(self._vectors(entries, strict=False, batch=batch))

    def keys(self, entry: Entry) -> dict[str, str] | Broken:
        """modality -> a digest of the cell's content, files included."""
        return keys_of(entry, self.processors)

    def _vectors(
        self, entries: Iterable[Entry], *, strict: bool, batch: int
    ) -> Iterator[dict[str, np.ndarray] | Broken]:
        for _, sample, output, i in self._run(entries, self.model.encode, strict=strict, batch=batch):
            if isinstance(sample, Broken):
                yield sample
            elif output is None:
                yield {}
            else:
                yield {m: output[m][i].float().cpu().numpy() for m in sample.pieces}

    def _needs_space(self) -> None:
        if not self.width:
            raise ConfigError(
                f"{self.folder}: was trained without a shared space, so it cannot encode. "
                "Train it with: motet fit TABLE --retrieval"
            )

    # ---- both

    def entries(
        self, rows: str | Path | Table | Iterable[Mapping[str, Any]], *, root: str | Path | None = None
    ) -> Sequence[Entry]:
        """The rows of a table as this model sees them: by the names of its columns, else by their kinds.

        Raises:
            DataError: the table cannot be read, or has nothing for this model.
        """
        if not isinstance(rows, str | Path | Table):
            return [entry_of(row, self.processors, where=f"row {i}") for i, row in enumerate(rows)]
        table = (
            rows if isinstance(rows, Table) else open_table(rows, root=None if root is None else Path(root))
        )
        columns = self._columns_in(table)
        id = self.columns.id if self.columns.id in table.columns else _named(table, "id")
        return TableEntries(table, columns, id, {m: p.kind for m, p in self.processors.items()})

    def _columns_in(self, table: Table) -> dict[str, str]:
        """modality -> the column of this table that holds it."""
        named = {modality_name(column): column for column in table.columns}
        named |= {f"{name}_sound": column for name, column in named.items()}  # the sound track of a clip
        columns = {m: named[m] for m in self.modalities if m in named}
        if len(columns) < len(self.modalities):
            label = _named(table, "label")  # may be empty where it is to be predicted
            found = infer_columns(table, overrides={label: "ignore"} if label else None).modalities
            for m, processor in self.processors.items():  # the only column of its kind that is left
                free = [
                    c for c, kind in found.items() if kind == processor.kind and c not in columns.values()
                ]
                if m not in columns and len(free) == 1:
                    columns[m] = free[0]
        if not columns:
            wanted = ", ".join(f"{m} ({p.kind})" for m, p in self.processors.items())
            raise DataError(
                f"{table.path}: has no column for this model, which knows {wanted}; the table has "
                f"{', '.join(table.columns)}. Rename a column."
            )
        return columns

    @torch.inference_mode()
    def _run(
        self, entries: Iterable[Entry], call: Callable[[TokenBatch], Any], *, strict: bool, batch: int = BATCH
    ) -> Iterator[tuple[Entry, Sample | Broken, Any, int]]:
        """Each entry with its sample, the output of its batch and its row there; in order."""
        stream = iter(entries)
        while part := list(islice(stream, batch)):
            samples = read_entries(part, self.processors, self.cache)
            usable = [s for s in samples if isinstance(s, Sample) and s.pieces]
            output = call(self.batch(usable)) if usable else None
            i = 0
            for entry, sample in zip(part, samples, strict=True):
                if isinstance(sample, Broken):
                    if strict:
                        raise DataError(f"{entry.where}: {sample.error}")
                    yield entry, sample, None, 0
                elif not sample.pieces:
                    yield entry, sample, None, 0
                else:
                    yield entry, sample, output, i
                    i += 1

    def batch(self, samples: Sequence[Sample]) -> TokenBatch:
        """Samples as the model takes them, on its device."""
        return collate(samples, self.model.config.modalities, {}).to(self.device)

    # ---- evaluate and explain

    def evaluate(
        self, table: str | Path, *, part: str | None = None, progress: Progress | None = None
    ) -> dict[str, Any]:
        """Metrics for everything that the model was trained for; see `motet.tasks.evaluate.evaluate`.

        part: the rows of the table's split column to use: "train", "val", "test" or "all". Without
        it, "test" where the table has such rows, else all. The result's "part" says which.

        Raises:
            DataError: the table cannot be read, has no such rows, or too many that are broken.
        """
        from motet.tasks.evaluate import evaluate

        opened = open_table(table)
        columns = self.columns.bind(opened)
        rows, part = _rows_of(opened, columns, part)
        dataset = Dataset(opened, columns, self.processors, rows, cache=self.cache, quarantine=Quarantine())
        dataset.prepare(progress)
        return {"part": part} | evaluate(self.model, dataset, progress=progress)

    def explain(self, input: Any, *, row: str | None = None) -> Explanation:
        """Where the model looked: `.save("report.html")`, `.to_dict()`, or shown by itself in a notebook.

        row: of a table, the id of the row to explain, else the first.

        Raises:
            ConfigError: no such row, or no modality for the input.
            DataError: the input cannot be read, or is empty.
        """
        from motet.explain.report import Explanation

        return Explanation(self.explain_entry(self._entry(input, row)))

    def explain_entry(self, entry: Entry, *, truth: str = "") -> Explained:
        """The same of an entry, as numbers; `truth` is the right answer, where it is known."""
        from motet.explain.item import explain_sample

        sample = read_entries([entry], self.processors, self.cache)[0]
        if isinstance(sample, Broken):
            raise DataError(f"{entry.where}: {sample.error}", rule=sample.error.rule)
        if not sample.pieces:
            raise DataError(f"{entry.where}: nothing in it that the model can use.")
        batch = collate([sample], self.model.config.modalities, {}, labels=True).to(self.device)
        media = {
            m: _media(entry, m, processor.kind)
            for m, processor in self.processors.items()
            if m in entry.cells
        }
        return explain_sample(self.model, batch, media, truth=truth)

    def _entry(self, input: Any, row: str | None) -> Entry:
        if not is_table(input):
            if row is not None:
                raise ConfigError(f"row {row!r}: only a table has rows; the input is one thing.")
            return entry_of(input, self.processors)
        entries = self.entries(input)
        if row is None:
            return entries[0]
        found = next((entry for entry in entries if entry.id == row), None)
        if found is None:
            raise ConfigError(f"{input}: no row has the id {row!r}.")
        return found


def _named(table: Table, role: str) -> str | None:
    return next((column for column in table.columns if column.lower() == role), None)


def _rows_of(table: Table, columns: Columns, part: str | None) -> tuple[list[int], str]:
    """The rows of one part, and its name."""
    column = columns.split or _named(table, "split")
    cells = ["all"] * len(table) if column is None else table.column(column)
    said = [SPLITS.get(str(cell).strip().lower(), str(cell)) for cell in cells]
    part = part or ("test" if "test" in said else "all")
    rows = [i for i, name in enumerate(said) if part in (name, "all")]
    if not rows:
        raise DataError(
            f"{table.path}: no row of the part {part!r}; there are {', '.join(sorted(set(said)))}. "
            "Choose one of them with --part, or all."
        )
    return rows, part


def _media(entry: Entry, modality: str, kind: str) -> Media:
    """What a page shows of a cell."""
    from motet.explain.item import Media

    cell = entry.cells[modality]
    if kind == "text":
        return Media(text=str(cell))
    if isinstance(cell, str | Path) and kind != "features":
        return Media(file=cell if isinstance(cell, Path) else resolve_media(cell, entry.root, entry.where))
    return Media()


def _answer(task: TaskSpec, prediction: Tensor) -> dict[str, Any]:
    """prediction: (classes,) logits or () a number."""
    if task.kind == "number":
        return {"label": float(prediction), "scores": {}}
    scores = prediction.float().softmax(-1).tolist()
    return {
        "label": task.classes[int(np.argmax(scores))],
        "scores": dict(zip(task.classes, scores, strict=True)),
    }


def _processor(stored: Folder, name: str) -> Processor:
    saved = stored.documents["processors.json"]
    if name not in saved:
        raise DataError(
            f"{stored.path}: processors.json lacks {name!r}, which config.json names. Train again."
        )
    encoder = saved[name].get("encoder")
    kind: Kind = "text" if saved[name]["kind"] == "text" else "image"
    return load_processor(saved[name], load_encoder(encoder["name"], kind) if encoder else None)


def _fingerprint(stored: Folder) -> str:
    """Of the weights, the architecture and the processors: what vectors depend on."""
    digest = hashlib.sha256()
    for name in ("config.json", "processors.json"):
        document = stored.documents[name]
        part = document["model"] if name == "config.json" else document
        digest.update(json.dumps(part, sort_keys=True).encode())
    for name in sorted(stored.tensors):
        digest.update(name.encode())
        digest.update(stored.tensors[name].reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device {name!r}: cannot be used here: {reason} Choose auto or cpu.") from None
    return device
