"""`motet export`: a model's encoders for programs without Python."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from motet.cli.output import emit, say


def export(
    model: Annotated[Path, typer.Argument(help="A model folder, as `motet fit` wrote it.")],
    onnx: Annotated[Path, typer.Option(metavar="DIR", help="Where the ONNX files are written.")],
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Write the encoders of a model as ONNX files: one a modality, from tokens to the shared space.

    DIR/onnx.json says what goes in and comes out; frozen encoders are files of their own.
    """
    from motet.predictor import Predictor
    from motet.predictor.onnx import export_onnx

    paths = export_onnx(Predictor.load(model, device="cpu"), onnx)
    if json:
        emit({"files": paths})
        return
    for path in paths:
        print(f"{path}  {path.stat().st_size / 2**20:.1f} MiB")
    say("each encoder's inputs and outputs: " + str(onnx / "onnx.json"))
