"""`dealeriq features`: plan and apply the definitions, list and read features, now and at past moments."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dealeriq.cli.history import command as history
from schemas.errors import DealerIQError

if TYPE_CHECKING:
    from dealeriq.settings import Settings
    from features.merge import MergedRow
    from features.plan import Plan

__all__ = ["FeatureRequestError", "app"]

app = typer.Typer(help="Plan, apply, list and read features.", no_args_is_help=True, add_completion=False)
app.command("history")(history)
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


class FeatureRequestError(DealerIQError):
    """What was asked for is not whom or when the features are about."""

    remedy = "See `dealeriq features ls` for the keys of each service and view."
    exit_code = 2


@app.command()
def plan(as_json: Json = False) -> None:
    """Show what applying the definitions in features/repo would change; writes nothing.

    Example: dealeriq features plan --json
    """
    from features.changes import compare
    from features.compiler import artefacts, compile_repo

    _hush_feast()
    compiled = compile_repo()
    changes = compare(_applied(), compiled)
    stale = sorted(
        path.name
        for path, text in artefacts(compiled).items()
        if not path.exists() or path.read_text("utf-8") != text
    )
    if as_json:
        typer.echo(json.dumps({"changes": [asdict(each) for each in changes], "files": stale}, indent=2))
        return
    for each in changes:
        typer.echo(f"{each.view}: {each.kind}")
        for sign, what, names in (
            ("+", "feature", each.added_features),
            ("-", "feature", each.removed_features),
            ("~", "feature", each.changed_features),
            ("+", "tile field", each.added_fields),
            ("-", "tile field", each.removed_fields),
        ):
            for name in names:
                typer.echo(f"  {sign} {what} {name}")
        typer.echo(f"  backfill: {each.backfill}{f' ({each.reason})' if each.reason else ''}")
    typer.echo(f"files to write: {', '.join(stale)}" if stale else "every generated file is in step")


@app.command("apply")
def apply_definitions(as_json: Json = False) -> None:
    """Write plan.json and the tile schemas, and apply the definitions to Feast's registry in the data folder.

    Refuses, before anything is written, a tile schema that cannot read what was ever written.

    Example: dealeriq features apply
    """
    from connectors.lake import lake_at
    from dealeriq.settings import load as load_settings
    from features import store
    from features.changes import compare
    from features.compiler import compile_repo, write
    from features.view_compiler import tile_schemas
    from schemas.compatibility import require_compatible

    _hush_feast()
    settings = load_settings()
    compiled = compile_repo()
    changes = compare(_applied(), compiled)
    subjects: dict[str, Any] = {}
    for view in compiled.views.values():
        key, value = tile_schemas(view)
        subjects |= {f"{view.topic}-key": key, f"{view.topic}-value": value}
    require_compatible(subjects)
    written = [path.name for path in write(compiled)]
    config, applied = None, []
    if settings.redis.url is None:
        print("dealeriq: redis.url is not set, so Feast's registry is left as it is.", file=sys.stderr)
    else:
        lake = lake_at(settings.lake, settings.data_dir)
        folder = settings.data_dir / "feast"
        config = store.write_config(settings.redis, settings.features.project, folder, lake)
        applied = store.apply(config)
    if as_json:
        needed = {each.view: each.backfill for each in changes}
        answer = {"written": written, "feast": str(config) if config else None, "backfill": needed}
        typer.echo(json.dumps(answer | {"applied": applied}, indent=2))
        return
    typer.echo("\n".join(f"wrote {name}" for name in written) or "every generated file was in step")
    if any(name.endswith(".avsc") for name in written):
        typer.echo("next: dealeriq schema record")
    for each in changes:
        if each.backfill != "none":
            typer.echo(f"{each.view} needs a backfill of {each.backfill}: {each.reason}")
    if config:
        typer.echo(f"applied {len(applied)} objects to Feast; its configuration is {config}")


@app.command()
def get(
    entity: Annotated[
        list[str], typer.Option(help="A key and its value, such as dealer_id=367; repeat for each key.")
    ],
    service: Annotated[str, typer.Option(help="Feature service or view.")] = "dealer",
    at: Annotated[
        str | None,
        typer.Option(help="Event time, ISO 8601 or ms since the epoch; default: what http.clock says."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Read the features of one entity from the online store.

    Example: dealeriq features get --entity dealer_id=367 --service dealer --at 2017-12-31T00:00:00Z
    """
    from dealeriq.settings import load as load_settings
    from features.plan import load

    settings = load_settings()
    compiled = load(project=settings.features.project)
    views = compiled.select(service)
    keys = _keys(entity, sorted({key for view in views for key in view.entity}), service)
    now, rows = _read(settings, compiled, service, keys, None if at is None else _moment(at))
    if as_json:
        answer: dict[str, Any] = {"service": service, "entity": keys, "at": now, "features": {}}
        answer |= {"statuses": {}, "event_times": {}}
        for view in views:
            row, names = rows[view.name], [each.name for each in view.features]
            answer["features"][view.name] = dict(zip(names, row.values, strict=True))
            answer["statuses"][view.name] = {
                name: status.name for name, status in zip(names, row.statuses, strict=True)
            }
            answer["event_times"][view.name] = row.event_time_ms
        typer.echo(json.dumps(answer, indent=2))
        return
    width = max(len(f"{view.name}.{each.name}") for view in views for each in view.features)
    for view in views:
        row = rows[view.name]
        for feature, value, status in zip(view.features, row.values, row.statuses, strict=True):
            shown = "-" if value is None else f"{value:,.4f}" if feature.dtype == "double" else f"{value:,}"
            typer.echo(f"{view.name + '.' + feature.name:<{width}}  {shown:>18}  {status.name.lower()}")


@app.command("ls")
def list_features(
    name: Annotated[str | None, typer.Argument(help="A feature service or view; default: all.")] = None,
    as_json: Json = False,
) -> None:
    """List services and views, or every feature of one of them.

    Example: dealeriq features ls dealer
    """
    from features.plan import load

    compiled = load()
    if as_json:
        chosen = compiled.views.values() if name is None else compiled.select(name)
        services = compiled.services if name is None else {}
        typer.echo(json.dumps({"services": services, "views": [asdict(each) for each in chosen]}, indent=2))
        return
    if name is not None:
        for view in compiled.select(name):
            for each in view.features:
                typer.echo(f"{view.name}.{each.name}")
        return
    for service, names in compiled.services.items():
        typer.echo(f"service {service}: {', '.join(names)}")
    for view in compiled.views.values():
        typer.echo(
            f"view {view.name}: {len(view.features)} features by {', '.join(view.entity)} from "
            f"{view.source_topic}, hop {view.hop_ms // 1000:,} s"
        )


def _hush_feast() -> None:
    import warnings

    # Feast says of stream and on-demand views that they are experimental; docs/ is the place for that.
    warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"feast\.")


def _applied() -> Plan | None:
    from features.plan import PLAN_PATH, load

    return load() if PLAN_PATH.exists() else None


def _keys(given: Sequence[str], wanted: Sequence[str], service: str) -> dict[str, str]:
    keys: dict[str, str] = {}
    for each in given:
        name, separator, value = each.partition("=")
        if not separator or not value:
            raise FeatureRequestError(f"--entity {each!r} is not of the form key=value")
        keys[name] = value
    if sorted(keys) != list(wanted):
        raise FeatureRequestError(
            f"--entity gives {', '.join(sorted(keys))}; {service} needs exactly {', '.join(wanted)}"
        )
    return keys


def _moment(text: str) -> int:
    from dealeriq.http.problems import ProblemError
    from dealeriq.http.selection import parse_time

    try:
        return parse_time(text)
    except ProblemError as error:
        raise FeatureRequestError(str(error).replace("at=", "--at "), remedy=error.remedy) from error


def _read(
    settings: Settings, compiled: Plan, service: str, keys: dict[str, str], at_ms: int | None
) -> tuple[int, dict[str, MergedRow]]:
    import asyncio
    import time

    import redis.asyncio

    from connectors.redis import refuse_cluster
    from features.keys import clock_key
    from features.reader import FeatureReader

    async def read() -> tuple[int, dict[str, MergedRow]]:
        client = redis.asyncio.Redis.from_url(settings.redis.address, **settings.redis.client_config())
        try:
            now = at_ms
            if now is None and settings.http.clock == "event":
                now = int(await client.get(clock_key(compiled.project)) or 0) or None
            now = int(time.time() * 1000) if now is None else now
            return now, (await FeatureReader(client, compiled).read(service, [keys], now))[0]
        finally:
            await client.aclose()

    refuse_cluster(settings.redis)
    return asyncio.run(read())
