"""`dealeriq models report`: what a version learnt from, and how it does where it is hard."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from schemas.errors import DealerIQError

__all__ = ["NoVersionError", "report"]


class NoVersionError(DealerIQError):
    """A model has no version to report on."""

    remedy = "Train it: `dealeriq models train NAME`."
    exit_code = 6


def report(
    name: Annotated[str, typer.Argument(help="Name of the model.")],
    version: Annotated[
        str | None, typer.Argument(help="A version; default: the champion, else the newest.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Tell what the training of a version found: its rows, its metrics by part and calendar, its calibration.

    Example: dealeriq models report churn
    """
    from dealeriq.settings import load
    from models.lifecycle_log import LifecycleLog
    from models.report import load_report
    from models.runtime import folder_of
    from models.specs import spec

    spec(name)
    settings = load()
    with LifecycleLog(settings.kafka, settings.registry) as log:
        log.catch_up()
        state = log.registry.state(name)
    asked = version or state.champion or next(reversed(state.versions), None)
    if asked is None:
        raise NoVersionError(f"{name} has no version yet")
    found = load_report(folder_of(state.version(asked).artifact))
    if as_json:
        typer.echo(json.dumps(found))
        return
    _tell(found)


def _tell(found: dict[str, Any]) -> None:
    print(f"dealeriq: {found['model']} {found['version']}: {found['verdict']}", file=sys.stderr)
    for each in found["warnings"]:
        print(f"dealeriq: warning: {each}", file=sys.stderr)
    for key, value in sorted(found["facts"].items()):
        typer.echo(f"{key:<24} {value:.6g}")
    typer.echo("")
    metric = found["slices"][0]["metric"] if found["slices"] else "metric"
    typer.echo(f"{'part':<28} {'rows':>9} {'mean':>8} {metric:>12} {'naive':>12} {'better':>8}")
    for each in found["slices"]:
        there = each["value"] is not None
        numbers = (
            f"{each['value']:>12.4f} {each['naive']:>12.4f} {100 * each['gain']:>7.1f}%"
            if there
            else f"{'-':>12} {'-':>12} {'-':>8}"
        )
        typer.echo(f"{each['part']:<28} {each['rows']:>9,} {each['mean']:>8.3f} {numbers}")
    if bins := found.get("calibration"):
        typer.echo("")
        typer.echo(f"{'told':>8} {'came true':>10} {'rows':>9}")
        for each in bins:
            typer.echo(f"{each['told']:>8.3f} {each['seen']:>10.3f} {each['rows']:>9,}")
