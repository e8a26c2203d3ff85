"""`dealeriq features history`: values at past moments, from the lake."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from schemas.errors import DealerIQError

__all__ = ["OutputExistsError", "command"]

_ROWS = 250_000  # computed and written at once


class OutputExistsError(DealerIQError):
    """The output file is there already."""

    remedy = "Name another file, or give --overwrite."
    exit_code = 2


class AsOf(StrEnum):
    """Which events a row sees."""

    EVENT = "event"
    ARRIVAL = "arrival"


def command(
    entities: Annotated[
        Path, typer.Option(help="CSV, Parquet or JSONL with the entity keys and event_timestamp.")
    ],
    out: Annotated[Path, typer.Option(help="CSV, Parquet or JSONL to write.")],
    service: Annotated[list[str], typer.Option(help="Feature service or view; repeat for more.")] = ["dealer"],  # noqa: B006  typer copies it
    features: Annotated[
        str | None, typer.Option(help="Only these, as view.feature,view.feature; instead of --service.")
    ] = None,
    as_of: Annotated[
        AsOf, typer.Option(help="`event`: late events are included; `arrival`: only what had come by then.")
    ] = AsOf.EVENT,
    statuses: Annotated[
        bool, typer.Option("--statuses", help="Add a column for each value that says why it is what it is.")
    ] = False,
    lake: Annotated[
        str | None, typer.Option(help="Folder or s3://bucket/prefix of the lake; default: lake.url.")
    ] = None,
    memory_mb: Annotated[int, typer.Option(min=128, help="DuckDB's memory; the rest goes to disk.")] = 768,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output file.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Say what was done as one JSON document.")] = False,
) -> None:
    """Write the features of each row of a file as they were at the row's time.

    No event later than a row's time is in its values. Whole numbers in event_timestamp are ms since the epoch;
    a text must name its time zone. What the values came from (the lake's versions and positions) is in the
    Parquet file's metadata, or beside the file in OUT.origin.json.

    Example: dealeriq features history --entities rows.csv --out training.parquet --service dealer
    """
    from connectors.lake import lake_at
    from dealeriq.settings import load as load_settings
    from features.history import TIME_COLUMN, History, choose
    from features.history.files import format_of, read_frame, writing
    from features.history.rows import read_rows
    from features.plan import load

    compiled, settings = load(), load_settings()
    names = [name.strip() for name in features.split(",")] if features else service
    views = choose(compiled, names)
    format_of(out)
    if out.exists() and not overwrite:
        raise OutputExistsError(f"{out} exists")
    frame = read_frame(entities, {TIME_COLUMN, *(key for view in views for key in view.entity)})
    if lake is not None:
        settings.lake.url = lake
    root = lake_at(settings.lake, settings.data_dir)
    with History(compiled, names, root, as_of=as_of, memory_mb=memory_mb) as history:
        times = read_rows(frame, views, history.columns).time  # all rows are checked before one is computed
        for topic, number in history.origin.versions.items():
            _say(f"{topic}: " + ("no table in the lake" if number is None else f"lake version {number}"))
        latest = history.latest_ms()
        if beyond := int((times > (latest or 0)).sum()):
            _say(f"{beyond:,} of {len(times):,} rows are later than the newest event in the lake")
        with writing(out) as write:
            for start in range(0, len(frame), _ROWS):
                write(history.of(frame.slice(start, _ROWS), statuses=statuses))
                _say(f"{min(start + _ROWS, len(frame)):,} of {len(frame):,} rows")
        if as_json:
            answer = {"out": str(out), "rows": len(frame), "features": history.columns}
            typer.echo(json.dumps({**answer, "origin": json.loads(history.origin.to_json())}))


def _say(line: str) -> None:
    print(f"dealeriq: {line}", file=sys.stderr, flush=True)
