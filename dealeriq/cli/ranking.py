"""`dealeriq ranking`: what feedback does to the ranking of search."""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from dealeriq.settings import Settings

__all__ = ["app"]

app = typer.Typer(
    help="Show and reset what feedback does to the ranking of search.",
    no_args_is_help=True,
    add_completion=False,
)


@app.command()
def show(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Say how many hits feedback has moved, and whether searches are better for it.

    Example: dealeriq ranking show
    """
    from dealeriq.settings import load

    found = _asked(load())
    if as_json:
        typer.echo(json.dumps(found))
        return
    _tell(found)


@app.command()
def reset(
    execute: Annotated[bool, typer.Option("--execute", help="Do it; without, only say what would be.")] = False,
) -> None:
    """Let feedback that was given until now no longer count. The feedback itself stays in its topic.

    Example: dealeriq ranking reset --execute
    """
    from connectors.redis import connect
    from dealeriq.settings import load
    from streams.views.ranking_view import since_key

    settings = load()
    store, key = connect(settings.redis), since_key(settings.features.project)
    before = store.get(key)
    if before is not None:
        moment = datetime.fromtimestamp(int(before) / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        print(f"dealeriq: it was reset before, at {moment}", file=sys.stderr)
    _tell(_asked(settings))
    if not execute:
        print("dealeriq: all of it would no longer count; --execute does it", file=sys.stderr)
        return
    store.set(key, time.time_ns() // 1_000_000)
    print("dealeriq: reset; searches are ranked without it within a second or two", file=sys.stderr)


def _asked(settings: Settings) -> dict[str, Any]:
    """What the search process holds. Raises ServiceRefusedError."""
    from dealeriq.cli.asking import ServiceRefusedError
    from dealeriq.search.asking import asker
    from streams.verify.vectors import IndexAwayError

    remedy = "Start it with `dealeriq demo --search`, or set search.url."
    if settings.search.address() is None:
        raise ServiceRefusedError("no search process is known: search.url is not set", remedy=remedy)
    try:
        found: dict[str, Any] = asker(settings)("/ranking", {})
    except IndexAwayError as error:
        raise ServiceRefusedError(str(error), remedy=remedy) from error
    return found


def _tell(found: dict[str, Any]) -> None:
    typer.echo(f"hits of searches that feedback moves  {found['pairs']:,}")
    typer.echo(f"in favour, searches with feedback     {found['weighted']:,}")
    typer.echo(f"in favour, searches held out          {found['held_out']:,}")
    if found["lift"] is None:
        typer.echo("lift                                  not known: an arm has none yet")
    else:
        lift, low, high = found["lift"]
        typer.echo(f"lift                                  {lift:+.1%} ({low:+.1%} to {high:+.1%})")
