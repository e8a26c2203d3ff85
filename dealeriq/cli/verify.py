"""`dealeriq verify`: compare the stores with the log, and repair what differs."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Annotated, Any

import typer

__all__ = ["command"]

_SHOWN = 50
_BREATH_S = 0.02
_NICE = 19  # it takes what others leave: half a minute instead of six seconds where they take all


def command(
    sample: Annotated[
        int | None, typer.Option(min=1, help="About how many dealers (and products) to compare; default: all.")
    ] = None,
    at_ms: Annotated[
        int | None, typer.Option(help="Event time at which features are read, ms; default: the event clock.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    gentle: Annotated[bool, typer.Option("--gentle", help="Leave the processors to others first.")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Show which rows would be written anew.")] = False,
    execute: Annotated[bool, typer.Option("--execute", help="With --repair: write them.")] = False,
) -> None:
    """Compare every store with the log, on the running system, and name what differs (exit 1).

    Nothing has to be stopped: each stored tile is compared with the events up to its own positions, and
    everything up to the Flink jobs' commits must be there. The local system that runs on the data folder is
    found; any other is named by its addresses.

    Example: dealeriq verify --sample 200 --json
    """
    from dealeriq.pace import collect_less_often, stand_back

    if gentle:
        os.environ.setdefault("POLARS_MAX_THREADS", "1")  # read when Polars is imported, which is below
        stand_back(_NICE)
    collect_less_often()
    from dealeriq.settings import load
    from dealeriq.verifier import verifier

    if execute and not repair:
        raise typer.BadParameter("--execute goes with --repair")
    checker = verifier(
        load(),
        progress=lambda line: print(f"dealeriq: {line}", file=sys.stderr, flush=True),
        pause=(lambda: time.sleep(_BREATH_S)) if gentle else (lambda: None),
    )
    report = checker.run(sample=sample, at_ms=at_ms)
    repairs: list[Any] = []
    beyond: dict[str, int] = {}
    if repair:
        from streams.verify.repair import Repairer

        repairer = Repairer(checker)
        repairs = repairer.execute() if execute else repairer.plan()
        beyond = repairer.beyond()
    if as_json:
        found = json.loads(report.to_json())
        if repair:
            found |= {"executed": execute, "repairs": [each.as_dict() for each in repairs], "beyond": beyond}
        typer.echo(json.dumps(found))
    else:
        _tell(report)
        for each in repairs:
            typer.echo(each.line())
        if beyond:
            typer.echo(f"beyond repair: {', '.join(f'{n} {kind}' for kind, n in beyond.items())}")
        if repair and repairs and not execute:
            typer.echo("nothing was written; --repair --execute writes")
    mended = execute and bool(repairs) and all(each.done for each in repairs) and not beyond
    if not report.clean and not mended:
        raise typer.Exit(1)


def _tell(report: Any) -> None:
    for finding in report.findings[:_SHOWN]:
        typer.echo(finding.line())
    if (more := sum(report.counts.values()) - _SHOWN) > 0:
        typer.echo(f"and {more:,} more")
    for topic, account in report.topics.items():
        typer.echo(f"{topic:<14} " + ", ".join(f"{count:,} {name}" for name, count in account.items() if count))
    if report.lake:
        total = {name: sum(table[name] for table in report.lake.values()) for name in ("rows", "behind")}
        what = (
            f"{total['rows']:,} rows of {len(report.lake)} tables compared, {total['behind']:,} records behind"
        )
        typer.echo(f"{'lake':<14} {what}")
    if report.models:
        told = ", ".join(f"{count:,} {name}" for name, count in report.models.items())
        typer.echo(f"{'models':<14} {told} compared")
    if report.graph:
        counts = ", ".join(f"{count:,} {name}" for name, count in report.graph.items())
        typer.echo(f"{'graph':<14} {counts} compared")
    if report.hybrid:
        counts = f"{report.hybrid['products']:,} products compared, {report.hybrid['moving']:,} on their way"
        typer.echo(f"{'hybrid':<14} {counts}")
    for note in report.notes:
        typer.echo(f"note: {note}")
    found = ", ".join(f"{count:,} {kind}" for kind, count in report.counts.items()) or "nothing differs"
    size = f"{report.values:,} values and {report.tiles:,} tiles of {report.entities:,} rows"
    typer.echo(f"{size} in {report.seconds:.1f} s: {found}")
