"""The model card: a README.md that says what was trained, on what, how well, and where it ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def model_card(
    *,
    name: str,
    modalities: Sequence[Mapping[str, Any]],
    counts: Mapping[str, int],
    metrics: Mapping[str, Any],
    training: Mapping[str, Any],
    dataset: Mapping[str, str] | None = None,
) -> str:
    """Markdown. Every number comes from the arguments; nothing is measured here.

    modalities: {"name", "kind", "pretrained"} each. counts: rows per part ("train", "val", "test",
    "quarantined"). metrics: what `evaluate` gave, with "part" naming the rows it was measured on.
    training: "epochs", "steps", "seconds", "parameters", "seed", "best" (a sentence). dataset: what the
    table's maker left beside it ("name", "note", "licence").
    """
    parts = [f"# {name}", _what(modalities, metrics), _data(counts, dataset or {}), _trained(training)]
    parts += [_retrieval(metrics)] if metrics.get("retrieval") else []
    parts += [_task(task, found) for task, found in metrics.get("tasks", {}).items() if found["n"]]
    parts += [_use(modalities, metrics), _limits(modalities, metrics, dataset or {})]
    return "\n\n".join(parts) + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; floats with three decimals, None as a dash."""
    lines = [head, ["---"] * len(head), *([_cell(value) for value in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3f}"
    return str(value).replace("|", "\\|").replace("\n", " ")


def _what(modalities: Sequence[Mapping[str, Any]], metrics: Mapping[str, Any]) -> str:
    jobs = [f"predicts `{task}`" for task in metrics.get("tasks", {})]
    jobs += ["finds items of one modality by another"] if metrics.get("retrieval") else []
    rows = [
        [m["name"], m["kind"], m.get("pretrained") or "from scratch", m.get("note") or "-"]
        for m in modalities
    ]
    return (
        f"A Mixture-of-Transformers that {' and '.join(jobs)}. Each modality has its own weights; any of "
        "them may be missing.\n\n" + table(["modality", "kind", "starts from", "note"], rows)
    )


def _data(counts: Mapping[str, int], dataset: Mapping[str, str]) -> str:
    lines = ["## Data", ""]
    lines += [dataset["name"] + "."] if dataset.get("name") else []
    lines += [dataset["note"]] if dataset.get("note") else []
    lines += [f"Licence: {dataset['licence']}"] if dataset.get("licence") else []
    lines += ["", table(["part", "rows"], [[part, count] for part, count in counts.items()])]
    return "\n".join(lines)


def _trained(training: Mapping[str, Any]) -> str:
    return (
        f"## Training\n\n{training['parameters']:,} trained parameters, {training['epochs']} epochs "
        f"({training['steps']} steps) in {training['seconds']:.0f} s, seed {training['seed']}. "
        f"{training['best']}"
    )


def _retrieval(metrics: Mapping[str, Any]) -> str:
    rows = []
    for pair in metrics["retrieval"]:
        if not pair["n"]:
            continue
        numbers = [f"{pair[f'R@{k}']:.3f} ({pair[f'chance_R@{k}']:.3f})" for k in (1, 5, 10)]
        rank = f"{pair['median_rank']:.0f} ({pair['chance_median_rank']:.0f})"
        rows.append([f"{pair['query']} → {pair['answer']}", *numbers, rank, pair["mAP"], pair["gallery"]])
    return (
        f"## Retrieval, on the {metrics.get('part', 'test')} rows\n\nChance in brackets. Rows of one "
        "group, and rows with equal contents, count as right answers.\n\n"
        + table(["query → answer", "R@1", "R@5", "R@10", "median rank", "mAP", "gallery"], rows)
    )


def _task(task: str, found: Mapping[str, Any]) -> str:
    if found["kind"] == "classes":
        head, keys = (
            ["accuracy", "macro-F1", "weighted F1", "AUROC"],
            ["accuracy", "macro_f1", "weighted_f1", "auroc"],
        )
        constant = f"always “{found['baseline']['label']}”"
    elif found["kind"] == "multilabel":
        head, keys = (
            ["all right", "macro-F1", "micro-F1", "AUROC"],
            ["accuracy", "macro_f1", "micro_f1", "auroc"],
        )
        constant = "always the labels that most rows have"
    else:
        head, keys = ["MAE", "RMSE", "Pearson"], ["mae", "rmse", "pearson"]
        extra = [key for key in ("acc_2", "acc_2_with_zero", "acc_5", "acc_7") if key in found["full"]]
        head, keys = head + extra, keys + extra
        constant = f"always {found['baseline']['value']:.3g}"
    rows = [
        [" + ".join(row["modalities"]), *(row.get(key) for key in keys), row["n"]] for row in found["subsets"]
    ]
    rows.append([f"*{constant}*", *(found["baseline"].get(key) for key in keys), found["n"]])
    text = f"## {task}: every subset of the modalities\n\n" + table(["given", *head, "rows"], rows)
    said = [*found["helps"], *found.get("shuffled", ())]
    if said:
        text += "\n\n" + "\n".join(f"- {row['sentence']}" for row in said)
    intervals = found["full"].get("intervals", {})
    if intervals:
        quoted = [f"{name} {a:.3f} to {b:.3f}" for name, (a, b) in intervals.items()]
        text += f"\n\n95 % intervals with all modalities given: {', '.join(quoted)}."
    if "confusion" in found["full"]:
        classes = found["classes"]
        counts = [[f"**{c}**", *row] for c, row in zip(classes, found["full"]["confusion"], strict=True)]
        text += "\n\nTrue classes in rows, predicted ones in columns:\n\n" + table(["", *classes], counts)
    return text


def _use(modalities: Sequence[Mapping[str, Any]], metrics: Mapping[str, Any]) -> str:
    lines = ["motet evaluate . TABLE                         # the same numbers on other rows"]
    if metrics.get("tasks"):
        lines.insert(0, "motet predict . INPUT                          # a media file, a text, or a table")
    if metrics.get("retrieval"):
        lines += [
            "motet index . TABLE --out items.index           # then:",
            'motet search items.index "some words" --top 5',
        ]
    return "## Use\n\nIn this folder:\n\n```\n" + "\n".join(lines) + "\n```"


def _limits(
    modalities: Sequence[Mapping[str, Any]], metrics: Mapping[str, Any], dataset: Mapping[str, str]
) -> str:
    part = metrics.get("part", "test")
    chosen = (
        "The best epoch was chosen on these same rows, so the numbers are optimistic."
        if part == "val"
        else "The best epoch was chosen on other rows; these were used once."
    )
    lines = [
        f"- Measured on {metrics['n']} rows of the same source as the training rows. {chosen}",
        "- Expect worse on data of another kind; run `motet evaluate` on your own rows first.",
    ]
    small = [name for name, found in metrics.get("tasks", {}).items() if 0 < found["n"] < 200]
    lines += [
        f"- `{name}` was measured on few rows; the intervals in metrics.json are wide." for name in small
    ]
    said = f"{dataset.get('note', '')} {dataset.get('name', '')}".lower()
    if "synthesi" in said:
        lines.append("- The speech is synthesised: nothing is known about human speakers.")
    if any(m.get("pretrained") for m in modalities):
        lines.append("- Pretrained encoders bring what they were trained on, its gaps and its biases.")
    return "## Limits\n\n" + "\n".join(lines)
