"""`dealeriq verify`: compare the stores with the log."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer

__all__ = ["command"]


def command(
    sample: Annotated[
        int, typer.Option(min=0, help="Entities to compare in each view; 0 compares all of them.")
    ] = 500,
    at_ms: Annotated[
        int | None, typer.Option(help="Event time of the comparison, ms; default: the latest event.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Recompute the online features from the topics' events and name every value that differs (exit 1).

    It needs the addresses of a system at rest: what arrives while it compares shows as a difference.

    Example, all entities: dealeriq verify --sample 0 --json
    """
    from connectors.redis import connect
    from connectors.registry import Registry
    from dealeriq.settings import load
    from features.plan import load as load_plan
    from streams.verify import verify_features

    settings = load()
    report = verify_features(
        settings.kafka,
        Registry(settings.registry),
        connect(settings.redis),
        load_plan(project=settings.features.project),
        at_ms=at_ms,
        sample=sample or None,
        progress=lambda line: print(f"dealeriq: {line}", file=sys.stderr, flush=True),
    )
    if as_json:
        typer.echo(json.dumps(asdict(report)))
    else:
        for each in report.differences:
            entity = ", ".join(map(str, each.entity))
            typer.echo(f"{each.view} ({entity}) {each.feature}: online {each.online}, log {each.expected}")
        typer.echo(
            f"{report.values:,} values of {report.entities:,} entities; {len(report.differences)} differ"
        )
    if not report.clean:
        raise typer.Exit(1)
