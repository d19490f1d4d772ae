"""The commands, in the order in which a newcomer needs them."""

from __future__ import annotations

from typing import Annotated

import typer

from motet.cli.builtin import builtin
from motet.cli.check import check
from motet.cli.convert import convert
from motet.cli.demo import demo
from motet.cli.evaluate import evaluate
from motet.cli.explain import explain
from motet.cli.export import export
from motet.cli.fit import fit
from motet.cli.index import index
from motet.cli.predict import predict
from motet.cli.runs import runs
from motet.cli.search import search
from motet.cli.serve import serve

app = typer.Typer(
    name="motet",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help answers twice as fast
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    demo,
    check,
    convert,
    fit,
    runs,
    evaluate,
    predict,
    index,
    search,
    explain,
    serve,
    export,
    builtin,
):
    app.command()(command)


def _version(wanted: bool) -> None:
    if wanted:
        from motet import __version__

        print(f"motet {__version__}")
        raise typer.Exit


@app.callback()
def motet(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """One model of your own texts, pictures, sounds and clips: train, evaluate, search, explain.

    Results go to stdout, everything else to stderr.

    \b
    Exit codes:
      0   done
      2   wrong use or config
      3   data unusable
      4   not the data or config of the run, model or index being continued
      5   no space, or a write failed
      75  stopped by a signal after saving; run again with --resume
    """
