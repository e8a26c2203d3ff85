"""`dealeriq models export`: models for other servers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["app"]

app = typer.Typer(help="Write models for other servers.", no_args_is_help=True, add_completion=False)


@app.callback()
def _group() -> None:
    """Write models for other servers."""


@app.command()
def triton(
    folder: Annotated[Path, typer.Argument(help="The model repository: made, or brought up to date.")],
    model: Annotated[
        list[str] | None, typer.Option("--model", help="A model; may be given again. Default: all champions.")
    ] = None,
    max_batch: Annotated[int, typer.Option(min=1, help="Most rows that Triton answers together.")] = 4_096,
    execute: Annotated[
        bool, typer.Option("--execute", help="Write; without, only what would be written is shown.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Write a Triton model repository of the champions: config.pbtxt, and the ONNX file under its number.

    Run it again after a promotion: a Triton that polls the folder swaps its version. Numbers are those of
    registration, so a later export never gives one to another version.

    Example: dealeriq models export triton /srv/triton/models --model churn --execute
    """
    from dealeriq.settings import load
    from models.export.triton import prepare
    from models.lifecycle import LifecycleError
    from models.lifecycle_log import LifecycleLog

    settings = load()
    with LifecycleLog(settings.kafka, settings.registry) as log:
        log.catch_up()
        registry = log.registry
        champions = sorted(name for name, state in registry.models.items() if state.champion is not None)
        if not (names := model or champions):
            raise LifecycleError("no model has a champion to export")
        exports = [prepare(registry.state(name), max_batch) for name in names]
    if execute:
        for each in exports:
            each.write(folder)
    rows = [
        {
            "model": each.description.name,
            "version": each.description.version,
            "number": each.number,
            "bytes": (each.source / "model.onnx").stat().st_size,
            "files": [str(file) for file in each.files(folder)],
        }
        for each in exports
    ]
    if as_json:
        typer.echo(json.dumps({"folder": str(folder), "models": rows, "done": execute}))
        return
    for each in exports:
        told = each.description
        typer.echo(f"{told.name:<18} {told.version:<22} {folder / told.name / str(each.number)}")
    if execute:
        print(f"dealeriq: tritonserver --model-repository {folder.absolute()}", file=sys.stderr)
    else:
        print("dealeriq: nothing was written; add --execute to write it", file=sys.stderr)
