"""The page docs/cli.md, made from the commands themselves: `python -m motet.cli.reference > docs/cli.md`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import typer
from typer.main import get_command

WIDTH = 100


def reference() -> str:
    """Markdown: every command with its arguments, options and defaults."""
    from motet.cli.app import app

    command = get_command(app)
    context = typer.Context(command, info_name="motet")
    parts = [
        "# Command line",
        "Made from the commands by `python -m motet.cli.reference`; a test holds it to them.",
        _prose(command.help or ""),
    ]
    for name in command.list_commands(context):  # type: ignore[attr-defined]
        found = command.get_command(context, name)  # type: ignore[attr-defined]
        parts += [f"## motet {name}", _prose(found.help or ""), _usage(name, found), *_tables(found)]
    return "\n\n".join(parts) + "\n"


def _prose(text: str) -> str:
    """Help text; what stands under \\b keeps its lines, as code."""
    paragraphs = []
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        kept = paragraph.startswith("\b\n")
        paragraphs.append(f"```\n{paragraph[2:]}\n```" if kept else paragraph)
    return "\n\n".join(paragraphs)


def _usage(name: str, command: typer.core.TyperCommand) -> str:
    context = typer.Context(command, info_name=f"motet {name}")
    pieces = " ".join(command.collect_usage_pieces(context))
    return f"```\nmotet {name} {pieces}\n```"


def _tables(command: typer.core.TyperCommand) -> Iterator[str]:
    context = typer.Context(command, info_name="motet")
    rows = []
    for parameter in command.params:
        record = parameter.get_help_record(context)
        if record is None or "--help" in parameter.opts:
            continue
        names, said = record
        rows.append(f"| `{_plain(names)}` | {_plain(said)} |")
    if rows:
        yield "\n".join(["| argument or option | |", "|---|---|", *rows])


def _plain(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    print(reference(), end="")
