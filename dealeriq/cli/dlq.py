"""`dealeriq dlq`: what could not be read, why, and sending it back."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from connectors.dead_letters import DeadLetter

__all__ = ["app"]

app = typer.Typer(help="Look at dead letters and send them back.", no_args_is_help=True, add_completion=False)
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Name = Annotated[str, typer.Argument(help="The topic they came from, without .dlq.")]


@app.command("ls")
def list_counts(as_json: Json = False) -> None:
    """Count the dead letters of every topic that has any.

    Example: dealeriq dlq ls --json
    """
    from connectors.dead_letters import counts
    from dealeriq.settings import load

    found = counts(load().kafka)
    if as_json:
        typer.echo(json.dumps([{"topic": t, "kept": k, "waiting": w} for t, (k, w) in found.items()], indent=2))
        return
    for name, (kept, waiting) in found.items():
        typer.echo(f"{name}: {kept} kept, {waiting} not sent back")
    if not found:
        typer.echo("no dead letters")


@app.command()
def show(
    topic: Name,
    limit: Annotated[int, typer.Option(min=1, help="How many, oldest first.")] = 20,
    as_json: Json = False,
) -> None:
    """Show dead letters with their reason, source position and first bytes.

    Example: dealeriq dlq show orders
    """
    from connectors.dead_letters import dead_letters
    from dealeriq.settings import load

    found = islice(dead_letters(load().kafka, topic), limit)
    if as_json:
        typer.echo(json.dumps([_as_data(each) for each in found], indent=2))
        return
    for each in found:
        source = f"{each.source_topic}[{each.source_partition}]@{each.source_offset}"
        size = "tombstone" if each.value is None else f"{len(each.value)} bytes {each.value[:40]!r}"
        typer.echo(f"{source} {_when(each.time_ms)} {each.stage}: {each.error}\n    {size}")


@app.command()
def redrive(
    topic: Name,
    execute: Annotated[
        bool, typer.Option("--execute", help="Do it; without it only the plan is shown.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many, oldest first.")] = None,
    as_json: Json = False,
) -> None:
    """Send dead letters that were not sent back yet to their topic again, as they were.

    Example: dealeriq dlq redrive orders --execute
    """
    from connectors.dead_letters import dead_letters
    from connectors.dead_letters import redrive as send_back
    from dealeriq.settings import load

    settings = load().kafka
    if execute:
        sent = send_back(settings, topic, limit)
        typer.echo(json.dumps({"topic": topic, "sent": sent}) if as_json else f"{topic}: {sent} sent back")
        return
    reasons = Counter(each.error for each in islice(dead_letters(settings, topic, redriven=False), limit))
    if as_json:
        typer.echo(
            json.dumps({"topic": topic, "would_send": reasons.total(), "reasons": dict(reasons)}, indent=2)
        )
        return
    typer.echo(f"{topic}: would send back {reasons.total()}; add --execute to do it")
    for reason, number in reasons.most_common(20):
        typer.echo(f"  {number:>8}  {reason}")


def _as_data(each: DeadLetter) -> dict[str, object]:
    return {
        "source": {
            "topic": each.source_topic,
            "partition": each.source_partition,
            "offset": each.source_offset,
        },
        "offset": each.offset,
        "error": each.error,
        "stage": each.stage,
        "time_ms": each.time_ms,
        "key": None if each.key is None else each.key.decode(errors="replace"),
        "value_hex": None if each.value is None else each.value.hex(),
        "headers": {name: (value or b"").decode(errors="replace") for name, value in each.headers},
    }


def _when(time_ms: int | None) -> str:
    return "" if time_ms is None else datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
