"""`dealeriq connect`: other systems as sources of inbound topics."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from connectors.airbyte.source import Source
    from connectors.airbyte.sync import SyncSummary
    from connectors.cdc.bridge import BridgeSummary
    from connectors.cdc.config import CdcConfig
    from connectors.cdc.worker import Worker
    from dealeriq.settings import Settings

__all__ = ["app"]

_REJECTED = 6

app = typer.Typer(
    help="Read other systems into topics, and go on where it was.", no_args_is_help=True, add_completion=False
)
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


@app.command()
def airbyte(
    source: Annotated[
        str, typer.Option(help="A source of requirements/airbyte.in (faker), or any command line.")
    ],
    config: Annotated[Path | None, typer.Option(help="JSON file: the source's own configuration.")] = None,
    stream: Annotated[str | None, typer.Option(help="Which of its streams.")] = None,
    topic: Annotated[str | None, typer.Option(help="Inbound topic: orders, products, dealers, ...")] = None,
    map_: Annotated[list[str] | None, typer.Option("--map", help="FIELD=COLUMN, or FIELD=COLUMN:CAST.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="FIELD=VALUE for every row.")] = None,
    mapping: Annotated[Path | None, typer.Option(help="TOML: timezone, [columns], [constants].")] = None,
    timezone: Annotated[str | None, typer.Option(help="Zone of times that name none (default UTC).")] = None,
    name: Annotated[str | None, typer.Option(help="Of the connection (SOURCE.STREAM.TOPIC).")] = None,
    commit_at: Annotated[
        str, typer.Option(help="state: at each state of the source; end: once, when it is done.")
    ] = "state",
    every: Annotated[float | None, typer.Option(min=1, help="Read again after so many seconds.")] = None,
    rejects: Annotated[Path | None, typer.Option(help="Bad rows (NAME.rejects.jsonl).")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the first rows as events.")] = False,
    spec: Annotated[bool, typer.Option("--spec", help="Only show what the configuration may hold.")] = False,
    streams: Annotated[bool, typer.Option("--streams", help="Only list streams and columns.")] = False,
    as_json: Json = False,
) -> None:
    """Read a stream of an Airbyte source into an inbound topic, from where the connection's last run ended.

    Rows and the source's state commit together: a run that was killed goes on with no gap and no repeat. Nested
    columns are named by dots (address.city); _emitted_at is when the source emitted the row. Bad rows go to the
    rejects file, the rest goes on; then it exits with 6.

    Example: dealeriq connect airbyte --source faker --config faker.json --stream products --topic products
    --map product_id=id --map name=model --map category=make --map event_time=updated_at

    A container: --source 'docker run --rm -v {folder}:{folder} airbyte/source-postgres'
    """
    from connectors.mapping import ColumnMapping

    if commit_at not in ("state", "end"):
        raise typer.BadParameter("--commit-at is state or end")
    with _source(source, config) as opened:
        if spec:
            typer.echo(json.dumps(opened.spec(), indent=None if as_json else 2))
            return
        if streams:
            opened.check()
            _show_streams(opened, as_json)
            return
        if stream is None or topic is None:
            raise typer.BadParameter("--stream and --topic are needed; --streams lists the streams")
        columns = ColumnMapping.of(map_ or (), set_ or (), timezone, mapping)
        if dry_run:
            from connectors.airbyte.sync import preview_stream
            from dealeriq.cli.import_ import show_preview

            found = preview_stream(opened, stream, topic, columns)
            show_preview(found, as_json)
            raise typer.Exit(_REJECTED if found.rows > found.good else 0)
        from connectors.airbyte.sync import sync_stream
        from dealeriq.settings import load

        settings = load()
        label = name or f"{opened.name}.{stream}.{topic}"

        def read() -> SyncSummary:
            return sync_stream(
                settings.kafka,
                settings.registry,
                opened,
                stream,
                topic,
                columns,
                name=label,
                rejects=rejects,
                commit_at="end" if commit_at == "end" else "state",
                progress=_show_progress if sys.stderr.isatty() else None,
            )

        _repeated(read, every, as_json)


@app.command()
def cdc(
    config: Annotated[Path, typer.Option(help="TOML file: name, database, [[tables]], [connector].")],
    idle: Annotated[
        float | None, typer.Option(min=1, help="End when nothing changed for so many seconds.")
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take the connector away instead.")] = False,
    execute: Annotated[bool, typer.Option("--execute", help="With --remove: do it.")] = False,
    as_json: Json = False,
) -> None:
    """Take over the rows of PostgreSQL tables as they change, until Ctrl-C; docs/connect.md has the file.

    Inserted and updated rows become records, deleted ones tombstones on compacted topics; what cannot be taken
    over is in TOPIC.dlq. The Kafka Connect worker is started when connect.url is unset.

    Example: dealeriq connect cdc --config shop.toml
    """
    from connectors.cdc.config import load_config
    from connectors.cdc.worker import Worker
    from dealeriq.runtime import Supervisor
    from dealeriq.settings import load

    captured = load_config(config)
    settings = load()
    if remove and not execute:
        typer.echo(f"would take the connector {captured.name} away; --execute does it", err=True)
        return
    settings.kafka.address  # noqa: B018  (said before a worker is started for nothing)
    with Supervisor(settings, ("connect",), data_dir=settings.data_dir / "connect") as supervisor:
        worker = Worker(supervisor.settings.connect)
        if remove:
            there = worker.delete(captured.name)
            typer.echo(f"{captured.name} {'is taken away' if there else 'was not there'}", err=True)
            slot = captured.debezium(1)["slot.name"]
            typer.echo(
                f"the database keeps its log for the slot until: SELECT pg_drop_replication_slot('{slot}')",
                err=True,
            )
            return
        summary = _capture(captured, worker, supervisor.settings, idle)
    if as_json:
        typer.echo(json.dumps(summary.as_dict()))
    else:
        typer.echo(f"{summary.changes:,} changes: {summary.written:,} messages, {summary.dead:,} dead letters")


@app.command()
def ls(as_json: Json = False) -> None:
    """List the connections: what they brought, and when they last committed.

    Example: dealeriq connect ls --json
    """
    from dataclasses import asdict

    from connectors.connections import connections
    from dealeriq.settings import load

    settings = load()
    found = connections(settings.kafka, settings.registry)
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in found]))
        return
    for each in found:
        state = "at its end" if each.finished else "not at its end"
        typer.echo(
            f"{each.name}  {each.source} -> {each.topic}  {each.rows_produced:,} rows, "
            f"{each.rows_rejected:,} rejected, {state}, {each.when}"
        )


@app.command()
def reset(
    name: Annotated[str, typer.Argument(help="Of the connection, as `dealeriq connect ls` lists it.")],
    execute: Annotated[bool, typer.Option("--execute", help="Do it; without, only say what would be.")] = False,
) -> None:
    """Forget a connection's state: its next run starts from the beginning. What it brought stays.

    Example: dealeriq connect reset faker.products.products --execute
    """
    from connectors.connections import UnknownConnectionError, connections, forget
    from dealeriq.settings import load

    settings = load()
    found = {each.name: each for each in connections(settings.kafka, settings.registry)}
    if name not in found:
        raise UnknownConnectionError(f"no connection is called {name!r}")
    if not execute:
        rows = found[name].rows_read
        typer.echo(f"would forget that {name} read {rows:,} rows, and its state; --execute does it", err=True)
        return
    forget(settings.kafka, settings.registry, name)
    typer.echo(f"{name} starts from the beginning", err=True)


def _capture(captured: CdcConfig, worker: Worker, settings: Settings, idle: float | None) -> BridgeSummary:
    import signal
    import threading

    from connectors.cdc.bridge import Bridge
    from connectors.cdc.worker import ConnectRefusedError

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    heard_at = time.monotonic()
    running = False

    def heard(summary: BridgeSummary) -> None:
        nonlocal heard_at
        heard_at = time.monotonic()
        if sys.stderr.isatty():
            line = f"\r{summary.changes:,} changes, {summary.dead:,} dead letters"
            print(line, end="", file=sys.stderr, flush=True)

    def watch() -> None:
        nonlocal heard_at, running
        reason = worker.problem(captured.name)
        if reason is not None:
            raise ConnectRefusedError(f"the connector {captured.name} failed: {reason}")
        if not running:
            running = worker.running(captured.name)
            heard_at = time.monotonic()
        elif idle is not None and time.monotonic() - heard_at > idle:
            stop.set()

    bridge = Bridge(settings.kafka, settings.registry, captured, stop=stop, watch=watch, progress=heard)
    worker.put(captured.name, captured.debezium(settings.kafka.replication))
    return bridge.run()


def _source(text: str, config: Path | None) -> Source:
    """The source that a name or a command line means."""
    from connectors.airbyte.errors import SourceConfigError
    from connectors.airbyte.source import Source
    from dealeriq.runtime.child import die_with_parent

    settings: Any = {}
    if config is not None:
        try:
            settings = json.loads(config.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise SourceConfigError(f"the configuration {config} cannot be read: {error}") from error
        if not isinstance(settings, dict):
            raise SourceConfigError(f"the configuration {config} is not a JSON object")
    parts = shlex.split(text)
    if not parts:
        raise typer.BadParameter("--source is empty")
    name = Path(parts[0]).name if len(parts) == 1 else Path(parts[-1]).stem
    if len(parts) == 1 and "/" not in parts[0]:
        parts, name = _locked(parts[0])
    return Source(name, parts, settings, die_with_parent)


def _locked(name: str) -> tuple[list[str], str]:
    """The command of a source that requirements/airbyte.lock installs; else a command on the path."""
    import shutil

    from connectors.airbyte.errors import NotASourceError
    from dealeriq.runtime.environments import ensure_environment

    short = name.removeprefix("airbyte-").removeprefix("source-")
    found = shutil.which(name)
    if found is not None:
        return [found], short
    programs = ensure_environment("airbyte", lambda line: typer.echo(f"dealeriq: {line}", err=True))
    program = programs / f"source-{short}"
    if not program.exists():
        offered = sorted(each.name.removeprefix("source-") for each in programs.glob("source-*"))
        raise NotASourceError(
            f"no source is called {name!r}; there are {', '.join(offered)}",
            remedy="Say one of these, or any command line that speaks Airbyte's protocol.",
        )
    return [str(program)], short


def _repeated(read: Callable[[], SyncSummary], every: float | None, as_json: bool) -> None:
    while True:
        summary = read()
        if as_json:
            typer.echo(json.dumps(summary.as_dict()))
        else:
            typer.echo(
                f"{summary.rows_produced:,} of {summary.rows_read:,} rows of {summary.source}.{summary.stream} "
                f"are in {summary.topic}"
            )
            if summary.rows_rejected:
                typer.echo(f"{summary.rows_rejected:,} rows are in {summary.rejects}")
        if every is None:
            raise typer.Exit(_REJECTED if summary.rows_rejected else 0)
        time.sleep(every)


def _show_streams(opened: Source, as_json: bool) -> None:
    found = opened.discover()
    if as_json:
        rows = [{"name": s.name, "incremental": s.incremental, "columns": s.columns} for s in found]
        typer.echo(json.dumps(rows))
        return
    for each in found:
        mode = "goes on" if each.incremental else "whole each time"
        typer.echo(f"{each.name} ({mode}): {', '.join(each.columns)}")


def _show_progress(summary: SyncSummary) -> None:
    line = f"\r{summary.rows_read:,} rows read, {summary.rows_rejected:,} rejected"
    print(line, end="", file=sys.stderr, flush=True)
