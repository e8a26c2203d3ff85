"""`dealeriq models`: what is there, what serves, how it came to that; train, compare, promote, roll back."""

from __future__ import annotations

import json
import sys
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dealeriq.cli.models_export import app as export
from dealeriq.cli.models_report import report

if TYPE_CHECKING:
    from dealeriq.settings import Settings
    from models.lifecycle import ModelState
    from models.lifecycle_log import LifecycleLog
    from models.monitoring.observation import Observation

__all__ = ["app"]

app = typer.Typer(
    help="List, train, compare, promote and roll back models.", no_args_is_help=True, add_completion=False
)
app.add_typer(export, name="export")
app.command()(report)
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Execute = Annotated[bool, typer.Option("--execute", help="Do it; without, only what would be done is shown.")]
Name = Annotated[str, typer.Argument(help="Name of the model.")]


@app.command()
def ls(
    name: Annotated[str | None, typer.Argument(help="One model: its versions and what it reads.")] = None,
    as_json: Json = False,
) -> None:
    """List the models, or one model's versions.

    Example: dealeriq models ls demand_forecast --json
    """
    from models.specs import spec, specs

    log = _log()
    with log:
        log.catch_up()
        found = log.registry
        if name is not None:
            told = {**spec(name).describe(), **found.state(name).as_dict()}
            told["monitors"] = [each.as_dict() for each in _newest(found.state(name))]
            if as_json:
                typer.echo(json.dumps(told))
                return
            _say(f"{told['summary']} Label: {told['label']}.")
            for each in found.state(name).versions.values():
                shown = " ".join(f"{key}={value:.4g}" for key, value in sorted(each.metrics.items())[:4])
                typer.echo(f"{each.version:<22} {each.stage:<11} {_when(each.changed_ms)}  {shown}")
            for seen in told["monitors"]:
                alarm = " ALARM" if seen["alarm"] else ""
                typer.echo(
                    f"{seen['model_version']:<22} {seen['monitor']:<11} {_when(seen['window_end'])}  "
                    f"{seen['text']}{alarm}"
                )
            if not found.state(name).versions:
                _say(f"no version yet: dealeriq models train {name}")
            return
        rows = [
            {
                **each.describe(),
                "champion": found.state(key).champion,
                "challenger": found.state(key).challenger,
                "share": found.state(key).share,
            }
            for key, each in specs().items()
        ]
    if as_json:
        typer.echo(json.dumps({"models": rows}))
        return
    for row in rows:
        share = f"canary {row['share']:.0%}" if row["share"] else "shadow" if row["challenger"] else "-"
        typer.echo(
            f"{row['name']:<18} {row['champion'] or '-':<22} {row['challenger'] or '-':<22} {share:<11} "
            f"{row['summary']}"
        )
    _say("name, champion, challenger, what the challenger is, what the model tells")


@app.command()
def train(
    name: Name,
    as_of: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"], help="As if the stream had ended then, UTC."),
    ] = None,
    request: Annotated[
        str | None,
        typer.Option(help="Leave it to the trainer: send it a request with these words as the reason."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a model now, judge it by its gates, and promote it where it is better than the champion.

    Exit 5 when a check stops the training; a version that its gates refuse is no error.

    Example: dealeriq models train demand_forecast --as-of 2017-10-01
    """
    from models.specs import spec

    spec(name)
    settings = _settings()
    if request is not None:
        from models.requests import send

        identity = send(settings.kafka, settings.registry, name, "person", request)
        typer.echo(json.dumps({"request": identity}) if as_json else f"asked the trainer: request {identity}")
        return
    from dealeriq.training import record
    from dealeriq.training import train as train_now

    cause = uuid.uuid4().hex
    with _log(settings) as log:
        log.catch_up()
        state = _copy(log.registry.state(name))
        result = train_now(settings, state, cause, as_of_ms=_moment(as_of), progress=_say)
        step = record(log, settings, state, result, cause)
        _mirror(settings, log)
    if as_json:
        typer.echo(json.dumps({**result, "stage": step.stage}))
        return
    for each in result["warnings"]:
        _say(f"warning: {each}")
    _table(
        {
            result["version"]: result["metrics"],
            "champion": result["champion"],
            "naive answer": result["baseline"],
        }
    )
    typer.echo(f"{result['version']} is {step.stage}; {result['text']}")


@app.command()
def compare(
    name: Name,
    version: Annotated[
        str | None, typer.Argument(help="A version; default: the challenger or the newest.")
    ] = None,
    other: Annotated[
        str | None, typer.Option("--with", help="The other version; default: the champion.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Ask two versions on the newest rows of the lake, and show their metrics with the interval of the gain.

    Example: dealeriq models compare demand_forecast 20171001-0a1b2c3d4e
    """
    from connectors.lake import lake_at
    from dealeriq.training import child, text_of

    settings = _settings()
    with _log(settings) as log:
        log.catch_up()
        state = log.registry.state(name)
    one = state.version(version or state.challenger or next(reversed(state.versions), ""))
    two = state.version(other or state.champion or "")
    lake = lake_at(settings.lake, settings.data_dir)
    job = {
        "model": name, "lake": lake.url, "lake_options": dict(lake.options), "new": one.artifact,
        "other": two.artifact, "memory_mb": settings.trainer.memory_mb,
        "text": text_of(settings),
    }  # fmt: skip
    found = child("training.compare", job, most_s=settings.trainer.most_s, progress=_say)
    if as_json:
        typer.echo(json.dumps(found))
        return
    _table(found["metrics"])
    gain = found["gain"]
    typer.echo(
        f"{one.version} is {100 * gain['gain']:+.1f} % better than {two.version} in {found['metric']} "
        f"({100 * gain['low']:.1f} to {100 * gain['high']:.1f}) on {found['rows']:,} rows"
    )


@app.command()
def promote(
    name: Name, version: Annotated[str, typer.Argument(help="The version to serve.")], execute: Execute = False,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Make a version champion. Scorers follow at once, MLflow's aliases by the trainer.

    Example: dealeriq models promote demand_forecast 20171001-0a1b2c3d4e --execute
    """
    _decide(name, version, "person", execute, as_json)


@app.command()
def rollback(name: Name, execute: Execute = False, as_json: Json = False) -> None:
    """Make the champion before this one champion again.

    Example: dealeriq models rollback demand_forecast --execute
    """
    _decide(name, None, "rollback", execute, as_json)


@app.command()
def history(
    name: Annotated[str | None, typer.Argument(help="One model; default: all.")] = None, as_json: Json = False
) -> None:
    """Tell every step of the models in order, those that count for nothing, too, then the monitors' alarms.

    Example: dealeriq models history demand_forecast
    """
    with _log() as log:
        log.catch_up()
        steps = [each for each in log.registry.history if name in (None, each.model)]
    raised = [each for each in _seen() if each.alarm and name in (None, each.model)]
    if as_json:
        alarms = [each.as_dict() for each in raised]
        typer.echo(json.dumps({"history": [vars(each) for each in steps], "alarms": alarms}))
        return
    for each in steps:
        void = f" [counts for nothing: {each.void}]" if each.void else ""
        told = f"{each.model} {each.version} {each.stage} ({each.reason}): {each.text}"
        typer.echo(f"{_when(each.event_time)} {told}{void}")
    for seen in raised:
        typer.echo(
            f"{_when(seen.window_end)} {seen.model} {seen.model_version} alarm ({seen.monitor}): {seen.text}"
        )


@app.command()
def sync(as_json: Json = False) -> None:
    """Set MLflow's aliases and stages to what the log says; the trainer does so by itself.

    Example: dealeriq models sync
    """
    from dealeriq.training import mirror

    settings = _settings()
    with _log(settings) as log:
        log.catch_up()
        changed = mirror(settings, log.registry.models)
    if as_json:
        typer.echo(json.dumps(changed))
        return
    for model, lines in changed.items():
        typer.echo(f"{model}: {', '.join(lines) or 'as the log says'}")


def _decide(name: str, version: str | None, reason: str, execute: bool, as_json: bool) -> None:
    settings = _settings()
    with _log(settings) as log:
        log.catch_up()
        state = _copy(log.registry.state(name))
        chosen = state.before() if version is None else state.version(version)
        told: dict[str, Any] = {"model": name, "version": chosen.version, "replaces": state.champion}
        if execute:
            words = "rolled back from" if reason == "rollback" else "promoted by a person in place of"
            step = log.write(
                name, chosen.version, "champion", f"{words} {state.champion}",
                cause=uuid.uuid4().hex, reason=reason, after=state.position, artifact=chosen.artifact,
                run_id=chosen.run_id, sha256=chosen.sha256,
            )  # fmt: skip
            told |= {"done": True, "at": step.at}
        else:
            told["done"] = False
    if as_json:
        typer.echo(json.dumps(told))
    elif execute:
        typer.echo(f"{name} {chosen.version} is champion; before: {state.champion}")
    else:
        shown = {chosen.version: chosen.metrics}
        if state.champion:
            shown[f"{state.champion} (champion)"] = state.versions[state.champion].metrics
        _table(shown)
        typer.echo(f"would make {name} {chosen.version} ({chosen.stage}) champion in place of {state.champion}")
        _say("nothing was done; add --execute to do it")


def _mirror(settings: Settings, log: LifecycleLog) -> None:
    """Show the log's state in MLflow where trainings have been run; the log holds, whatever MLflow says."""
    from dealeriq.training import mirror
    from models.training.child import ChildFailedError

    if settings.mlflow.url is None and not (settings.data_dir / "mlflow").exists():
        return
    try:
        mirror(settings, log.registry.models)
    except ChildFailedError as error:
        _say(f"warning: {error} {error.remedy}")


def _seen() -> list[Observation]:
    """Every observation of the monitors."""
    from models.monitoring.observation import ObservationLog

    settings = _settings()
    with ObservationLog(settings.kafka, settings.registry) as log:
        return log.catch_up()


def _newest(state: ModelState) -> list[Observation]:
    """The newest observation of each monitor of the versions that score."""
    found = {
        (each.model_version, each.monitor): each
        for each in _seen()
        if each.model == state.name and each.model_version in (state.champion, state.challenger)
    }
    return list(found.values())


def _settings() -> Settings:
    from dealeriq.settings import load

    return load()


def _log(settings: Settings | None = None) -> LifecycleLog:
    from models.lifecycle_log import LifecycleLog

    settings = settings or _settings()
    return LifecycleLog(settings.kafka, settings.registry)


def _copy(state: ModelState) -> ModelState:
    """The state as it is now: the log's own moves on."""
    from copy import deepcopy

    return deepcopy(state)


def _moment(given: datetime | None) -> int | None:
    return None if given is None else int(given.replace(tzinfo=UTC).timestamp() * 1000)


def _table(rows: Mapping[str, Mapping[str, float]]) -> None:
    names = sorted({name for row in rows.values() for name in row})
    typer.echo(f"{'':<26}" + "".join(f"{name:>19}" for name in names))
    for title, row in rows.items():
        if row:
            typer.echo(f"{title:<26}" + "".join(f"{row.get(name, float('nan')):>19.5g}" for name in names))


def _when(ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(ms / 1000))


def _say(line: str) -> None:
    print(f"dealeriq: {line}", file=sys.stderr, flush=True)
