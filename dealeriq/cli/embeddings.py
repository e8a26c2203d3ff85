"""`dealeriq embeddings`: what the vectors are like, and whether they still are."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from dealeriq.settings import Settings

__all__ = ["app"]

app = typer.Typer(
    help="Watch the vectors: how far each week is from the reference, how far encoders agree; refresh them.",
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


@app.command()
def refresh(
    execute: Annotated[
        bool, typer.Option("--execute", help="Do it; without, only say what would be encoded.")
    ] = False,
    wait: Annotated[float, typer.Option(help="Longest wait for the agents, s.", min=1)] = 3_600.0,
    as_json: Json = False,
) -> None:
    """Encode what the topics hold and the encoder in use lacks; what has not changed is not encoded again.

    The agents do it between the changes that come, and by themselves on the schedule embeddings.refresh. Some
    texts are encoded to measure the encoder's rate. Vectors of the graph and of what dealers order are computed
    again on their own schedules, and by `dealeriq graph embed`.

    Example: dealeriq embeddings refresh --execute --json
    """
    from dealeriq.settings import load

    settings = load()
    if not execute:
        _preview(settings, as_json)
        return
    from dealeriq.reindex.refreshing import refresh as ask

    done = ask(settings, lambda line: print(f"dealeriq: {line}", file=sys.stderr), wait_s=wait)
    if as_json:
        typer.echo(json.dumps(done))
        return
    for agent, each in done.items():
        typer.echo(f"{agent}: {each['records']:,} records looked at in {each['seconds']:.1f} s")


def _preview(settings: Settings, as_json: bool) -> None:
    from dealeriq.reindex.work import price
    from models.text import text_encoder

    found: dict[str, Any] = {"text": price(settings, text_encoder(settings.text)).as_dict()}
    if settings.image.enabled:
        from dealeriq.reindex.refreshing import pictures
        from models.image import image_encoder

        found["image"] = pictures(settings, image_encoder(settings.image).identity)
    if as_json:
        typer.echo(json.dumps(found))
        return
    text = found["text"]
    typer.echo(
        f"text   {text['encoder']}: {text['changed']:,} of {text['records']:,} records, "
        f"{text['chunks']:,} chunks, about {text['tokens']:,} tokens, {text['seconds']:.0f} s"
    )
    if (image := found.get("image")) is not None:
        typer.echo(f"image  {image['encoder']}: {image['changed']:,} of {image['records']:,} pictures")
    print("dealeriq: nothing was encoded; --execute does it", file=sys.stderr)


def _day(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d")
