"""`motet demo`: train, evaluate, search and explain on real data, by the code path of a user's own table."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from motet.cli.output import progress, say, table

if TYPE_CHECKING:
    from motet.index import Index
    from motet.predictor import Predictor
    from motet.types import Hit

MARK = "motet-demo.json"  # says that a folder is ours to write into again
FAST_ROWS = 320
FAST_SETTINGS = ("train.epochs=12",)
ASKED = ("something to eat", "an angry face", "bad weather")  # words that are no emoji's name
TEXT_QUERIES, SPEECH_QUERIES, EXPLAINED, TOP = 6, 4, 3, 5


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
    began = time.monotonic()
    _prepare(out)
    from motet.data.builtin.emoji import build_emoji
    from motet.explain.report import demo_report
    from motet.index import Index
    from motet.predictor import Predictor
    from motet.train.fit import fit

    bar = progress()
    say("1/5 the data: emoji with picture, name, spoken name (synthesised) and feeling")
    data = build_emoji(out / "data", seed=seed, limit=FAST_ROWS if fast else None, progress=bar)
    say("2/5 one model for both jobs: sentiment and retrieval")
    settings = FAST_SETTINGS if fast else ()
    folder = fit(
        data, label="sentiment", retrieval=True, out=out / "model", settings=settings, seed=seed, progress=bar
    )
    say("3/5 the model on unseen concepts")
    predictor = Predictor.load(folder)
    metrics = _read_json(folder / "metrics.json")
    _show(metrics)
    say("4/5 an index of all pictures")
    index = Index.create(out / "pictures.index", predictor)
    index.add(data, progress=bar)
    answers = _ask(index, predictor, data, seed)
    _show_answers(answers)
    say("5/5 the report")
    unseen = _unseen(predictor, data, seed)
    page = demo_report(
        {
            "metrics": metrics,
            "history": _read_lines(folder / "metrics.jsonl"),
            "queries": answers,
            "explained": [predictor.explain(data, row=row["id"]) for row in unseen[:EXPLAINED]],
            "counts": metrics["counts"],
            "speech": "synthesised",
        }
    )
    (out / "report.html").write_text(page, encoding="utf-8")
    bar.close()
    _finish(out, unseen[0]["id"], time.monotonic() - began)


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


def _unseen(predictor: Predictor, data: Path, seed: int) -> list[dict[str, Any]]:
    """The test rows in a seeded order, so that nobody chose the examples."""
    import numpy as np

    from motet.data.table import open_table

    opened = open_table(data)
    rows = [opened.row(i) for i in range(len(opened))]
    unseen = [row for row in rows if row["split"] == "test"]
    return [unseen[i] for i in np.random.default_rng(seed).permutation(len(unseen))]


def _ask(index: Index, predictor: Predictor, data: Path, seed: int) -> list[dict[str, Any]]:
    """Queries and the pictures found: names and spoken names of unseen concepts, and words of our own."""
    unseen = _unseen(predictor, data, seed)
    queries: list[tuple[str, str, Any, str | None]] = [
        ("text", str(row["name"]), row["name"], str(row["group"])) for row in unseen[:TEXT_QUERIES]
    ]
    for row in unseen[TEXT_QUERIES : TEXT_QUERIES + SPEECH_QUERIES]:
        queries.append(("speech", str(row["name"]), data.parent / str(row["speech"]), str(row["group"])))
    queries += [("text", words, words, None) for words in ASKED]
    return [
        {"kind": kind, "words": words, "query": query, "group": group, "hits": hits}
        for kind, words, query, group in queries
        for hits in [index.search(query, top=TOP, modality="picture")]
    ]


def _show_answers(answers: Sequence[Mapping[str, Any]]) -> None:
    rows = []
    for answer in answers:
        found = [_name_of(hit, answer["group"]) for hit in answer["hits"]]
        rows.append([answer["kind"], answer["words"], ", ".join(found)])
    print()
    table(["query", "", "pictures found, best first (* the concept asked for)"], rows, title="Search")


def _name_of(hit: Hit, group: str | None) -> str:
    return f"{hit.fields['name']}{'*' if group is not None and hit.fields.get('group') == group else ''}"


def _finish(out: Path, example: str, seconds: float) -> None:
    import resource
    import shlex

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # kilobytes on Linux
    where = {
        "report": out / "report.html",
        "model": out / "model",
        "index": out / "pictures.index",
        "data": out / "data",
    }
    for what, path in where.items():
        print(f"{what:8} {path}")
    print(f"time     {seconds:.0f} s, peak memory {peak:.1f} GiB")
    model, index, data = (shlex.quote(str(where[what])) for what in ("model", "index", "data"))
    print("\nTry next:")
    print(f'  motet search {index} "a red fruit" --modality picture')
    print(f'  motet predict {model} "happy birthday"')
    print(f"  motet explain {model} {data} --row {example} --out {shlex.quote(str(out / 'why.html'))}")


def _read_json(path: Path) -> dict[str, Any]:
    from motet.config import read

    return read(path)


def _read_lines(path: Path) -> list[dict[str, Any]]:
    import json

    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
