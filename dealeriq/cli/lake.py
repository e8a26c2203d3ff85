"""`dealeriq lake`: what the lake holds, its upkeep by hand, and filling a table anew."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.errors import DealerIQError

if TYPE_CHECKING:
    from connectors.lake import Lake
    from dealeriq.settings import Settings

__all__ = ["RecordsGoneError", "app"]

app = typer.Typer(
    help="List the lake's tables, tidy them, fill one anew.", no_args_is_help=True, add_completion=False
)
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


class RecordsGoneError(DealerIQError):
    """The topic no longer holds every record that its table has: filled anew, it would hold less."""

    remedy = "Restore the table from a copy; or give --lose to fill it with what the topic still holds."
    exit_code = 5


@app.command()
def ls(
    behind: Annotated[
        bool, typer.Option("--behind", help="Also ask Kafka how many records are not in the lake yet.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the tables: rows, files, bytes, Delta version and positions.

    A table that cannot be read is listed with its error, and the exit code is that error's.

    Example: dealeriq lake ls --behind
    """
    from connectors.lake import LakeError, LakeTableMissingError

    settings, lake = _opened()
    rows: list[dict[str, Any]] = []
    failed: DealerIQError | None = None
    ends = _ends(settings, _topics(settings)) if behind else {}
    for name in _topics(settings):
        try:
            rows.append(_table(lake, name, ends.get(name)))
        except LakeTableMissingError:
            if any(ends.get(name, {}).values()):
                rows.append({"topic": name, "rows": 0, "behind": sum(ends[name].values())})
        except LakeError as error:
            failed = error
            rows.append({"topic": name, "error": error.told})
    if as_json:
        typer.echo(json.dumps({"lake": lake.url, "tables": rows}, indent=2))
    else:
        for row in rows:
            typer.echo(_line(row))
        print(f"{lake.url}: {len(rows)} tables", file=sys.stderr)
    if failed is not None:
        raise typer.Exit(failed.exit_code)


@app.command()
def tidy(
    topic: Annotated[str, typer.Argument(help="The topic whose table is tidied.")],
    as_json: Json = False,
) -> None:
    """Join a table's small files, today's too, refresh its current table, and delete what no version needs.

    The lake view does this on a schedule; no row or position changes, and readers are not disturbed.

    Example: dealeriq lake tidy orders
    """
    from connectors.lake import compact, refresh, vacuum

    settings, lake = _opened()
    _declared(topic)
    joined = compact(lake, topic, every=True)
    refreshed = refresh(lake, topic)
    gone = vacuum(lake, topic, settings.lake.retention_h)
    found = {
        "topic": topic, "files_before": joined.files_before, "files_after": joined.files_after,
        "refreshed": refreshed, "deleted": len(gone),
    }  # fmt: skip
    typer.echo(
        json.dumps(found)
        if as_json
        else f"{topic}: {joined.files_before} files became {joined.files_after}, {len(gone)} old ones deleted, "
        f"{refreshed:,} records read for the current table"
    )


@app.command()
def rebuild(
    topic: Annotated[str, typer.Argument(help="The topic whose table is filled anew.")],
    execute: Annotated[
        bool, typer.Option("--execute", help="Do it; without it only the plan is shown.")
    ] = False,
    lose: Annotated[bool, typer.Option("--lose", help="Even where the topic let records go.")] = False,
    as_json: Json = False,
) -> None:
    """Put a topic's table aside, so that the lake view fills it anew from the topic.

    Nothing is deleted: the old table is kept below `aside/` in the lake. A running lake view notices, is
    started again by its supervisor, and reads the topic from its beginning. Refused where the topic no longer
    holds its first records.

    Example: dealeriq lake rebuild orders
    """
    from connectors.lake import put_aside
    from streams.verify.broker import Broker

    settings, lake = _opened()
    _declared(topic)
    broker = Broker(settings.kafka)
    firsts, ends = broker.firsts(topic), broker.ends(topic)
    gone = {number: first for number, first in firsts.items() if first}
    records = sum(end - firsts[number] for number, end in ends.items())
    if gone and not lose:
        raise RecordsGoneError(f"{topic} begins at {_places(gone)}: records before that are in the lake alone")
    aside = put_aside(lake, topic) if execute else None
    found = {"topic": topic, "records": records, "begins": gone, "executed": execute, "aside": aside}
    if as_json:
        typer.echo(json.dumps(found))
    elif execute:
        typer.echo(f"{topic}: the table is at {aside}; the lake view reads {records:,} records anew")
    else:
        typer.echo(f"{topic}: would put the table aside and read {records:,} records anew; --execute does it")


def _opened() -> tuple[Settings, Lake]:
    from connectors.lake import lake_at
    from dealeriq.settings import load

    settings = load()
    return settings, lake_at(settings.lake, settings.data_dir)


def _topics(settings: Settings) -> list[str]:
    from connectors.lake import default_topics

    return list(settings.lake.topics or default_topics())


def _declared(name: str) -> None:
    from schemas.catalogue import topic

    topic(name)


def _ends(settings: Settings, names: list[str]) -> dict[str, dict[int, int]]:
    from streams.verify.broker import Broker

    broker = Broker(settings.kafka)
    return {name: broker.ends(name) for name in names}


def _table(lake: Lake, name: str, ends: dict[int, int] | None) -> dict[str, Any]:
    from connectors.lake import active_files, positions, version

    at = version(lake, name)
    held = positions(lake, name, at)
    found = active_files(lake, name, at)
    row: dict[str, Any] = {
        "topic": name, "rows": sum(each.rows for each in found), "files": len(found),
        "bytes": sum(each.size for each in found), "version": at, "positions": held,
    }  # fmt: skip
    if ends is not None:
        row["behind"] = sum(max(end - held.get(number, 0), 0) for number, end in ends.items())
    return row


def _line(row: dict[str, Any]) -> str:
    if "error" in row:
        return f"{row['topic']:<22} {row['error']}"
    waiting = f"  {row['behind']:,} behind" if row.get("behind") else ""
    if "version" not in row:
        return f"{row['topic']:<22} no table yet{waiting}"
    size = f"{row['bytes'] / 1e6:,.1f} MB"
    at = f"version {row['version']}  at {_places(row['positions'])}"
    return f"{row['topic']:<22} {row['rows']:>12,} rows {row['files']:>5} files {size:>12}  {at}{waiting}"


def _places(positions: dict[int, int]) -> str:
    return ", ".join(f"{number}@{offset}" for number, offset in sorted(positions.items()))
