"""`dealeriq import TOPIC FILE`: bring rows of a file, or of stdin, into an inbound topic."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["command", "show_preview"]

_REJECTED = 6


def command(
    topic: Annotated[str, typer.Argument(help="Inbound topic: orders, chats, feedback, products, ...")],
    file: Annotated[str, typer.Argument(help="CSV, JSON Lines or Parquet file; - is stdin.")],
    map_: Annotated[list[str] | None, typer.Option("--map", help="FIELD=COLUMN, or FIELD=COLUMN:CAST.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="FIELD=VALUE for every row.")] = None,
    mapping: Annotated[Path | None, typer.Option(help="TOML: timezone, [columns], [constants].")] = None,
    timezone: Annotated[str | None, typer.Option(help="Zone of times that name none (default UTC).")] = None,
    format_: Annotated[str | None, typer.Option("--format", help="csv, jsonl or parquet.")] = None,
    encoding: Annotated[str, typer.Option(help="Of text files.")] = "utf-8",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show events and problems.")] = False,
    rejects: Annotated[Path | None, typer.Option(help="Bad rows (FILE.rejects.jsonl).")] = None,
    again: Annotated[
        str | None, typer.Option(help="A name: import the same file once more on purpose.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Import a file into an inbound topic; the same file twice adds nothing.

    Bad rows go to the rejects file with line and reason, the rest goes on; then it exits with 6.

    Example: dealeriq import orders sales.csv --map order_id=no --map event_time=sold_at --dry-run
    """
    from connectors import importer
    from connectors.files import UnreadableFileError
    from connectors.mapping import ColumnMapping

    columns = ColumnMapping.of(map_ or (), set_ or (), timezone, mapping)
    with ExitStack() as stack:
        if file == "-":
            if format_ is None:
                raise UnreadableFileError("stdin has no name that tells its format", remedy="Say --format csv.")
            path = stack.enter_context(importer.spooled(sys.stdin.buffer))
            source = "stdin"
        else:
            path, source = Path(file), file
        if dry_run:
            found = importer.preview(topic, path, columns, file_format=format_, encoding=encoding)
            show_preview(found, json_)
            raise typer.Exit(_REJECTED if found.rows > found.good else 0)
        from dealeriq.settings import load

        settings = load()
        summary = importer.import_file(
            settings.kafka,
            settings.registry,
            topic,
            path,
            columns,
            source=source,
            file_format=format_,
            encoding=encoding,
            rejects=rejects,
            again=again,
            progress=importer.show_progress if sys.stderr.isatty() else None,
        )
    _show_summary(summary, json_)
    raise typer.Exit(_REJECTED if summary.rows_rejected and not summary.already_imported else 0)


def show_preview(found: Any, as_json: bool) -> None:
    """Print what an import would do: events on stdout, problems on stderr."""
    if as_json:
        print(json.dumps(vars(found), default=str))
        return
    for event in found.events:
        print(json.dumps(event, default=str))
    print(f"{found.rows:,} rows, {found.good:,} good; nothing was written", file=sys.stderr)
    for reason, count in found.problems.items():
        lines = ", ".join(str(each["line"]) for each in found.examples[reason])
        print(f"  {count:,} x {reason} (lines {lines})", file=sys.stderr)


def _show_summary(summary: Any, as_json: bool) -> None:
    if as_json:
        print(json.dumps(summary.as_dict()))
    elif summary.already_imported:
        print(
            f"{summary.source} was already imported on {summary.already_imported}; "
            "nothing to do (use --again NAME to import it once more)"
        )
    else:
        print(f"{summary.rows_produced:,} of {summary.rows_read:,} rows are in {summary.topic}")
        if summary.rows_rejected:
            print(f"{summary.rows_rejected:,} rows are in {summary.rejects}")
