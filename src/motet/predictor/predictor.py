"""A trained model in use: predict, encode, evaluate, explain. What the command line and servers call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from motet.data.cache import FeatureCache, default_cache
from motet.data.collate import collate
from motet.data.columns import Columns
from motet.data.dataset import Dataset
from motet.data.processor import Processor
from motet.data.quarantine import Quarantine
from motet.data.table import Table, open_table
from motet.errors import ConfigError, DataError
from motet.model import Motet, TaskSpec
from motet.predictor import hub
from motet.predictor.answers import prediction
from motet.predictor.batches import BATCH, in_batches
from motet.predictor.cells import Broken, cell_of, keys_of, read_entries
from motet.predictor.inputs import Entry, entry_of, is_table
from motet.predictor.stored import Judged, choose_device, open_model
from motet.predictor.tables import TableEntries, rows_of
from motet.predictor.vectors import Precision, similarity, smaller
from motet.tasks.scores import Scores
from motet.types import Sample, TokenBatch

if TYPE_CHECKING:
    from motet.explain.report import Explanation, WholeExplanation
    from motet.index import Index

Progress = Callable[[int, int, str], None]


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
        judged: Judged | None = None,
        scores: Scores | None = None,
    ) -> None:
        self.model = model.eval()
        self.processors = dict(processors)
        self.columns = columns
        self.folder = folder
        self.fingerprint = fingerprint
        self.judged = judged
        self.scores = scores or Scores()
        self.cache = FeatureCache(default_cache())

    @classmethod
    def load(cls, folder: str | Path, *, device: str = "auto") -> Predictor:
        """Open a model folder, as `motet fit` wrote it.

        Raises:
            ConfigError: not a model folder; a device that is not there.
            DataError: the folder is damaged.
            MismatchError: an encoder that it was trained with is another one here.
        """
        stored = open_model(folder)
        return cls(
            stored.model.to(choose_device(device)),
            stored.processors,
            stored.columns,
            folder=stored.path,
            fingerprint=stored.fingerprint,
            judged=stored.judged,
            scores=stored.scores,
        )

    @classmethod
    def from_pretrained(
        cls, name: str | Path, *, revision: str | None = None, device: str = "auto"
    ) -> Predictor:
        """`load` a folder, or a model by its name on the hub."""
        return cls.load(hub.fetch(name, revision=revision), device=device)

    def save_pretrained(self, folder: str | Path) -> Path:
        """Copy the model's folder: safetensors, JSON and the card."""
        return hub.copy(self.folder, folder)

    def push_to_hub(self, name: str, *, private: bool = False) -> str:
        """Upload the model's folder with its card; its address."""
        return hub.push(self.folder, name, private=private)

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
        """Of one input: {"label", "scores", "score", "modalities", "status"}.

        label: the likeliest class, or the number; scores: class -> probability, empty for a number; score:
        see `motet.predictor.answers`; modalities: those that were heard; status: "ok", or "missing" for an
        input that is empty, or has nothing for this model (a clip without sound, where it only hears). A
        model of several tasks adds "tasks": name -> the same.

        Raises:
            ConfigError: the model was trained for retrieval only, or has no modality for this.
            DataError: the input cannot be read.
        """
        self._needs_task()
        empty = isinstance(input, str) and not input.strip()
        entry = Entry("input", {}, Path()) if empty else entry_of(input, self.processors)
        result = next(self._predictions([entry], strict=True))
        return {key: value for key, value in result.items() if key != "id"}

    def predict_table(self, table: str | Path | Table) -> Iterator[dict[str, Any]]:
        """Predict every row, in order, as it comes: what `predict` gives, with the row's "id".

        status: "ok"; "missing" for a row without any modality of the model; else what is wrong with it.
        """
        self._needs_task()
        return self._predictions(self.entries(table), strict=False)

    def predict_entries(self, entries: Sequence[Entry]) -> list[dict[str, Any]]:
        """`predict_table` of entries that are there already."""
        return list(self._predictions(entries, strict=False))

    def _predictions(self, entries: Iterable[Entry], *, strict: bool) -> Iterator[dict[str, Any]]:
        self._needs_task()
        for number, (entry, sample, output, i) in enumerate(self._run(entries, self.model, strict=strict)):
            yield prediction(entry, number, sample, output, i, tasks=self.tasks, modalities=self.modalities)

    def _needs_task(self) -> None:
        if not self.tasks:
            raise ConfigError(
                f"{self.folder}: was trained for retrieval only and predicts no label. "
                "Use `motet index` and `motet search`, or train with --label COLUMN."
            )

    # ---- encode

    def encode(
        self,
        inputs: Any,
        *,
        batch: int = BATCH,
        dims: int | None = None,
        precision: Precision = "fp32",
    ) -> np.ndarray:
        """Unit vectors in the shared space: (N, E) float32 of a list, (E,) of one input.

        Of an input with several modalities it is the normalised sum of theirs. dims, precision:
        smaller vectors, see `motet.predictor.vectors.smaller`.

        Raises:
            ConfigError: the model has no shared space, or no modality for an input; wrong dims.
            DataError: an input cannot be read, or is empty.
        """
        self.needs_space()
        single = not isinstance(inputs, Sequence) or isinstance(inputs, str | tuple)
        items = [inputs] if single else list(inputs)
        entries = [entry_of(item, self.processors, where=f"input {i}") for i, item in enumerate(items)]
        out = np.zeros((len(items), self.width), np.float32)
        for row, vectors in enumerate(self._vectors(entries, strict=True, batch=batch)):
            if not vectors or isinstance(vectors, Broken):
                raise DataError(f"input {row}: nothing in it that the model can encode.")
            total = np.sum(list(vectors.values()), axis=0)
            out[row] = total / max(float(np.linalg.norm(total)), 1e-12)
        out = smaller(out, dims=dims, precision=precision)
        return out[0] if single else out

    encode_query = encode  # what is looked for and what is found lie in one space
    encode_document = encode

    similarity = staticmethod(similarity)

    def encode_entries(
        self, entries: Sequence[Entry], *, batch: int = BATCH
    ) -> list[dict[str, np.ndarray] | Broken]:
        """modality -> (E,) for each entry, empty where it has none, or why it cannot be read."""
        self.needs_space()
        return list(self._vectors(entries, strict=False, batch=batch))

    def heard(self, input: Any) -> tuple[str, ...]:
        """The modalities that `encode` would read of an input; see `entry_of` for the errors."""
        entry = entry_of(input, self.processors)
        return tuple(m for m, p in self.processors.items() if cell_of(entry, m, p)[0] is not None)

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

    def needs_space(self) -> None:
        if not self.width:
            raise ConfigError(
                f"{self.folder}: was trained without a shared space, so it cannot encode. "
                "Train it with: motet fit TABLE --retrieval"
            )

    # ---- both

    def entries(
        self, rows: str | Path | Table | Iterable[Mapping[str, Any]], *, root: str | Path | None = None
    ) -> TableEntries | list[Entry]:
        """The rows of a table as this model sees them: by the names of its columns, else by their kinds.

        Raises:
            DataError: the table cannot be read, or has nothing for this model.
        """
        if not isinstance(rows, str | Path | Table):
            return [entry_of(row, self.processors, where=f"row {i}") for i, row in enumerate(rows)]
        table = (
            rows if isinstance(rows, Table) else open_table(rows, root=None if root is None else Path(root))
        )
        return TableEntries(table, self.processors, self.columns)

    def _run(
        self, entries: Iterable[Entry], call: Callable[[TokenBatch], Any], *, strict: bool, batch: int = BATCH
    ) -> Iterator[tuple[Entry, Sample | Broken, Any, int]]:
        return in_batches(
            entries,
            lambda part: read_entries(part, self.processors, self.cache),
            lambda samples: call(self.batch(samples)),
            strict=strict,
            batch=batch,
        )

    def batch(self, samples: Sequence[Sample]) -> TokenBatch:
        """Samples as the model takes them, on its device."""
        return collate(samples, self.model.config.modalities, {}).to(self.device)

    # ---- evaluate and explain

    def evaluate(
        self, table: str | Path, *, part: str | None = None, progress: Progress | None = None
    ) -> dict[str, Any]:
        """Metrics for everything that the model was trained for; see `motet.tasks.evaluate.evaluate`.

        part: the rows of the table's split column to use: "train", "val", "test" or "all". Without
        it, on the table that the model was trained on, the rows that it was judged by then; else
        "test" where the table has such rows, else all. The result's "part" says which.

        Raises:
            DataError: the table cannot be read, has no such rows, or too many that are broken.
        """
        from motet.tasks.evaluate import evaluate

        opened = open_table(table)
        columns = self.columns.bind(opened)
        rows, part = self.judged_rows(opened, columns, part)
        dataset = Dataset(opened, columns, self.processors, rows, cache=self.cache, quarantine=Quarantine())
        dataset.prepare(progress)
        samples = [dataset[i] for i in range(len(dataset))]
        return {"part": part} | evaluate(self.model, samples, progress=progress)

    def judged_rows(self, table: Table, columns: Columns, part: str | None) -> tuple[list[int], str]:
        """The rows of a part; without one, those that the model was judged by, else as `evaluate` says."""
        if part is None and self.judged is not None and self.judged.table == table.fingerprint:
            return list(self.judged.rows), self.judged.part
        return rows_of(table, columns, part)

    def explain(
        self,
        input: Any,
        *,
        row: str | None = None,
        rows: int = 100,
        index: Index | None = None,
        against: str | None = None,
        modality: str | None = None,
        progress: Progress | None = None,
    ) -> Explanation | WholeExplanation:
        """Where the model looked: `.save("report.html")`, `.to_dict()`, or shown by itself in a notebook.

        A table is explained as a whole, by `rows` of the rows that `evaluate` would take.
        row: of a table, the id of the one row to explain.
        index, against: an index and the id of one of its rows: also, which tokens of the two met; with
        `modality`, of that modality of the row, as a search for it compares.

        Raises:
            ConfigError: no such row, or no modality for the input.
            DataError: the input cannot be read, or is empty.
        """
        from motet.explain.report import Explanation, WholeExplanation
        from motet.predictor.look import explain_entry, one_entry, result_of
        from motet.predictor.whole import explain_table

        if (index is None) != (against is None):
            raise ConfigError("explain: an index and the id of its row go together: --index with --against.")
        if is_table(input) and row is None:
            if index is not None:
                raise ConfigError(f"{input}: --against goes with one row of a table: add --row ID.")
            return WholeExplanation(explain_table(self, input, rows=rows, progress=progress))
        other = None
        if index is not None and against is not None:
            self.needs_space()
            other = result_of(self, index, against)
            if modality is not None and modality not in other.cells:
                raise ConfigError(f"{against}: has no {modality!r}; it has {', '.join(other.cells)}.")
        entry = one_entry(self, input, row)
        return Explanation(explain_entry(self, entry, against=other, against_modality=modality))
