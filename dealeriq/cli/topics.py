"""`dealeriq topics`: what the catalogue declares, beside what the cluster has."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

__all__ = ["app"]

app = typer.Typer(
    help="List, describe and create the topics of the catalogue.", no_args_is_help=True, add_completion=False
)
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


@app.command("ls")
def list_topics(
    everything: Annotated[bool, typer.Option("--all", help="Dead-letter topics too.")] = False,
    declared_only: Annotated[bool, typer.Option("--declared", help="Do not ask the cluster.")] = False,
    as_json: Json = False,
) -> None:
    """List the topics, with the partitions declared and found.

    Example: dealeriq topics ls --json
    """
    from dealeriq.settings import load
    from schemas.catalogue import CATALOGUE

    kafka = load().kafka
    found: dict[str, int] = {}
    if not declared_only:
        from connectors.kafka import partition_counts

        found = partition_counts(kafka)
    rows: list[dict[str, Any]] = [
        {
            "topic": each.name,
            "partitions": kafka.partitions_of(each),
            "found": found.get(each.name),
            "key": list(each.key),
            "compacted": each.compacted,
            "retention_ms": each.retention_ms,
            "inbound": each.inbound,
        }
        for each in CATALOGUE.values()
        if everything or not each.is_dead_letters
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    width = max(len(str(row["topic"])) for row in rows)
    for row in rows:
        state = "" if declared_only else _state(row)
        typer.echo(
            f"{row['topic']:<{width}}  {row['partitions']:>3} partitions  key {','.join(row['key'])}{state}"
        )


@app.command()
def create(as_json: Json = False) -> None:
    """Create the topics that are missing; refuses when one has other partitions than declared.

    Example: dealeriq topics create
    """
    from connectors.kafka import ensure_topics
    from dealeriq.settings import load

    created = ensure_topics(load().kafka)
    if as_json:
        typer.echo(json.dumps(created))
        return
    typer.echo("\n".join(f"created {name}" for name in created) or "every topic is there")


@app.command()
def describe(name: Annotated[str, typer.Argument(help="A topic.")], as_json: Json = False) -> None:
    """Show one topic: key, schema, bounds, retention, who writes and who reads.

    Example: dealeriq topics describe orders
    """
    from schemas.bounds import bounds
    from schemas.catalogue import topic

    declared = topic(name)
    if as_json:
        facts = {
            "topic": declared.name,
            "description": declared.description,
            "key": list(declared.key),
            "partitions": declared.partitions,
            "config": declared.config,
            "compatibility": declared.compatibility,
            "owner": declared.owner,
            "writers": list(declared.writers),
            "readers": list(declared.readers),
            "inbound": declared.inbound,
            "schema": declared.schema,
            "key_schema": declared.key_schema,
        }
        typer.echo(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    typer.echo(f"{declared.name}: {declared.description}")
    typer.echo(f"key {', '.join(declared.key)}; {declared.partitions} partitions; owner {declared.owner}")
    typer.echo(f"written by {', '.join(declared.writers)}; read by {', '.join(declared.readers)}")
    typer.echo("; ".join(f"{setting}={value}" for setting, value in declared.config.items()))
    for each in bounds(name):
        kind = each.type + ("?" if each.nullable else "") + ("" if each.required else " (has a default)")
        typer.echo(f"  {each.field:<18} {kind:<28} {each.text}")


def _state(row: dict[str, Any]) -> str:
    if row["found"] is None:
        return "  (missing: dealeriq topics create)"
    return "" if row["found"] == row["partitions"] else f"  (the cluster has {row['found']} partitions)"
