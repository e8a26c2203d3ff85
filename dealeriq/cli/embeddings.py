"""`dealeriq embeddings`: what the vectors are like, and whether they still are."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Annotated

import typer

__all__ = ["app"]

app = typer.Typer(
    help="Watch the vectors: how far each week is from the reference, and how much two encoders agree.",
    no_args_is_help=True,
    add_completion=False,
)
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


@app.command("ls")
def kinds(as_json: Json = False) -> None:
    """List the kinds of vectors in the lake, each with its encoders and how many owners came in each window.

    Example: dealeriq embeddings ls
    """
    from connectors.lake import lake_at
    from dealeriq.settings import load
    from models.embedding.watch import history_of

    settings = load()
    with history_of(lake_at(settings.lake, settings.data_dir), settings.embeddings) as history:
        found = history.series()
    if as_json:
        rows = [{"kind": each.kind, "encoder": each.encoder, "owners": each.owners} for each in found]
        typer.echo(json.dumps(rows))
        return
    for each in found:
        windows = ", ".join(f"{_day(begin)} {owners:,}" for begin, owners in each.owners.items())
        typer.echo(f"{each.kind:<8}  {each.encoder:<40}  {windows}")
    if not found:
        print("dealeriq: the lake has no vectors yet", file=sys.stderr)


@app.command()
def drift(
    days: Annotated[
        float | None, typer.Option(help="Length of a window, days; default: embeddings.window_days.", min=0.001)
    ] = None,
    as_json: Json = False,
) -> None:
    """Hold each window of vectors in the lake against the reference, and encoders beside each other.

    Nothing is written: the watch in the trainer's process tells the topic `embeddings.monitors`. The exit code
    is 1 where the newest window of a kind is not as the reference.

    Example: dealeriq embeddings drift --days 7 --json
    """
    from connectors.lake import lake_at
    from dealeriq.settings import load
    from models.embedding.watch import judge

    settings = load()
    chosen = settings.embeddings
    if days is not None:
        chosen = chosen.model_copy(update={"window_days": days})
    found = judge(lake_at(settings.lake, settings.data_dir), chosen)
    if as_json:
        typer.echo(json.dumps([each.as_dict() for each in found]))
    else:
        for each in found:
            typer.echo(f"{_day(each.window_start)}  {'ALARM' if each.alarm else '     '}  {each.text}")
        if not found:
            print(
                f"dealeriq: nothing to judge yet: it takes a reference of {chosen.reference_windows} windows "
                f"and a later one, {chosen.window_days:g} days with at least {chosen.least_owners} owners each",
                file=sys.stderr,
            )
    newest = {(each.kind, each.encoder): each.alarm for each in found if each.monitor == "shift"}
    if any(newest.values()):
        raise typer.Exit(1)


def _day(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d")
