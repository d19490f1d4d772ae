"""`motet demo`: train, evaluate, search and explain on real data, by the code path of a user's own table."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from motet.cli.output import progress, say, table

if TYPE_CHECKING:
    from motet.explain.demo_report import Query
    from motet.index import Index
    from motet.predictor import Entry, Predictor

MARK = "motet-demo.json"  # says that a folder is ours to write into again
FAST_ROWS = 320
FAST_SETTINGS = ("train.epochs=12",)
ASKED = ("something to eat", "an angry face", "bad weather")  # words that are no emoji's name
TEXT_QUERIES, SPEECH_QUERIES, EXPLAINED, TOP = 6, 4, 3, 6
ABOUT = (
    "Emoji: their pictures, their names, their names spoken by a synthesiser, and how people feel where they "
    "use them. One model learns both jobs: to find one modality by another, and to tell the feeling."
)


def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where everything is written.")] = Path(
        "motet-demo"
    ),
    fast: Annotated[
        bool, typer.Option("--fast", help="Fewer emoji and epochs: half a minute, worse numbers.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the split, the weights and the order of the data.")] = 0,
) -> None:
    """Train, evaluate, search and explain on real data, in two minutes.

    The data are emoji: their pictures, names and spoken names, and how people feel where they use
    them. The speech is synthesised.
    """
    _prepare(out)
    from motet.data.builtin.emoji import build_emoji
    from motet.explain.demo_report import demo_report
    from motet.explain.report import write_page
    from motet.index import Index
    from motet.predictor import Predictor
    from motet.train.fit import fit

    bar = progress()
    seconds: dict[str, float] = {}
    with _stage(
        "data", seconds, "1/5 the data: emoji with picture, name, spoken name (synthesised), feeling"
    ):
        data = build_emoji(out / "data", seed=seed, limit=FAST_ROWS if fast else None, progress=bar)
    with _stage("training", seconds, "2/5 one model for both jobs: sentiment and retrieval"):
        settings = FAST_SETTINGS if fast else ()
        folder = fit(
            data,
            label="sentiment",
            retrieval=True,
            out=out / "model",
            settings=settings,
            seed=seed,
            progress=bar,
        )
    predictor = Predictor.load(folder)
    metrics = _read_json(folder / "metrics.json")
    _show(metrics)
    with _stage("index", seconds, "3/5 an index of all pictures"):
        index = Index.create(out / "pictures.index", predictor)
        index.add(data, progress=bar)
    unseen = _unseen(predictor, data, seed)
    with _stage("search", seconds, "4/5 searches for unseen concepts"):
        queries = _ask(index, unseen)
    _show_queries(queries)
    with _stage("report", seconds, "5/5 the report"):
        commands = _commands(out, str(unseen[0].id))
        page = demo_report(_report(predictor, index, metrics, queries, unseen, seconds, commands))
        write_page(out / "report.html", page)
    bar.close()
    _finish(out, sum(seconds.values()), commands)


@contextmanager
def _stage(name: str, seconds: dict[str, float], words: str) -> Iterator[None]:
    say(words)
    began = time.monotonic()
    yield
    seconds[name] = time.monotonic() - began


def _prepare(out: Path) -> None:
    """A new folder, or an earlier demo's: its data are kept, its model, index and report are made anew."""
    import shutil

    from motet.errors import ConfigError, StorageError

    if out.exists() and not (out.is_dir() and (not any(out.iterdir()) or (out / MARK).is_file())):
        raise ConfigError(
            f"{out}: already there, and not a demo's folder. Choose another one with --out DIR."
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / MARK).write_text('{"made by": "motet demo"}\n', encoding="utf-8")
        for name in ("model", "pictures.index"):
            shutil.rmtree(out / name, ignore_errors=True)
    except OSError as error:
        raise StorageError(f"{out}: cannot be written: {error.strerror}. Choose another --out.") from None


def _show(metrics: Mapping[str, Any]) -> None:
    from motet.cli.evaluate import show_metrics

    counts = ", ".join(f"{count} {part}" for part, count in metrics["counts"].items())
    print(f"Rows: {counts}. Measured on the {metrics['part']} rows, whose concepts the model has not seen.\n")
    show_metrics(metrics)


def _unseen(predictor: Predictor, data: Path, seed: int) -> list[Entry]:
    """The test rows in a seeded order, so that nobody chose the examples."""
    import numpy as np

    rows = [entry for entry in predictor.entries(data) if entry.fields["split"] == "test"]
    return [rows[i] for i in np.random.default_rng(seed).permutation(len(rows))]


def _ask(index: Index, unseen: Sequence[Entry]) -> list[Query]:
    """Names and spoken names of unseen concepts, and words of our own, each with the pictures found."""
    spoken = unseen[TEXT_QUERIES : TEXT_QUERIES + SPEECH_QUERIES]
    return [
        *(_query(index, str(entry.cells["name"]), entry) for entry in unseen[:TEXT_QUERIES]),
        *(
            _query(index, str(entry.cells["name"]), entry, entry.root / entry.cells["speech"])
            for entry in spoken
        ),
        *(_query(index, words) for words in ASKED),
    ]


def _query(index: Index, words: str, entry: Entry | None = None, sound: Path | None = None) -> Query:
    """Search for the words or the sound. `entry` is what is meant, where it is known."""
    from motet.explain.demo_report import Found, Query

    hits = index.search(sound or words, top=index.count(), modality="picture")
    group = None if entry is None else entry.fields["group"]
    right = [group is not None and hit.fields["group"] == group for hit in hits]
    found = [
        Found(Path(hit.fields["picture"]), hit.fields["name"], is_right, hit.score)
        for hit, is_right in zip(hits[:TOP], right, strict=False)
    ]
    return Query(words, tuple(found), sound, right.index(True) + 1 if any(right) else None)


def _show_queries(queries: Sequence[Query]) -> None:
    rows = [
        [
            "speech" if query.sound else "text",
            query.text,
            query.rank,
            ", ".join(f"{found.caption}{'*' * found.right}" for found in query.found),
        ]
        for query in queries
    ]
    table(["asked by", "for", "place", "pictures found, best first (* right)"], rows, title="Search")


def _report(
    predictor: Predictor,
    index: Index,
    metrics: Mapping[str, Any],
    queries: Sequence[Query],
    unseen: Sequence[Entry],
    seconds: dict[str, float],
    commands: Sequence[str],
) -> Any:
    """All that the page shows."""
    import json

    from motet.explain.demo_report import DemoReport
    from motet.model import parameter_groups
    from motet.predictor.look import explain_entry

    rated = [entry for entry in unseen if entry.fields.get("sentiment")]
    groups = parameter_groups(predictor.model)
    lines = (predictor.folder / "metrics.jsonl").read_text("utf-8").splitlines()
    return DemoReport(
        title="Motet: what it learned from emoji",
        about=ABOUT,
        parts={part: metrics["counts"][part] for part in ("train", "val", "test")},
        modalities=[
            {
                "name": spec.name,
                "kind": spec.kind,
                "pretrained": spec.pretrained,
                "note": "synthesised" if spec.kind == "audio" else "",
            }
            for spec in predictor.model.config.modalities
        ],
        parameters={name: sum(p.numel() for _, p in group) for name, group in groups.items()},
        seconds=seconds,
        history=[json.loads(line) for line in lines],
        metrics=metrics,
        queries=queries,
        items=[explain_entry(predictor, e, truth=str(e.fields["sentiment"])) for e in rated[:EXPLAINED]],
        gallery=index.count(),
        commands=commands,
        credits="Pictures: Twemoji, CC-BY 4.0. Feelings: Emoji Sentiment Ranking, Kralj Novak et al. 2015. "
        "Speech: synthesised by espeak-ng; nobody spoke it.",
    )


def _commands(out: Path, example: str) -> list[str]:
    model, index, data, why = (
        shlex.quote(str(out / name)) for name in ("model", "pictures.index", "data", "why.html")
    )
    return [
        f'motet search {index} "a red fruit" --modality picture',
        f'motet predict {model} "happy birthday"',
        f"motet explain {model} {data} --row {example} --out {why}",
    ]


def _finish(out: Path, seconds: float, commands: Sequence[str]) -> None:
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # KiB on Linux
    print()
    for what, name in (
        ("report", "report.html"),
        ("model", "model"),
        ("index", "pictures.index"),
        ("data", "data"),
    ):
        print(f"{what:8} {out / name}")
    print(f"time     {seconds:.0f} s; peak memory {peak:.1f} GiB\n\nTry next:")
    for command in commands:
        print(f"  {command}")


def _read_json(path: Path) -> dict[str, Any]:
    from motet.config import read

    return read(path)
