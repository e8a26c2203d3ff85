"""`dealeriq warehouse`: cleaned and labelled data over the lake, by dbt."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dealeriq.warehouse.build import BuildReport

__all__ = ["app"]

app = typer.Typer(
    help="Build, test and list the warehouse over the lake.", no_args_is_help=True, add_completion=False
)
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


@app.command()
def build(as_json: Json = False) -> None:
    """Build the warehouse anew from the lake and swap it in when every test passed; exit 7 when one did not.

    Example: dealeriq warehouse build --json
    """
    from connectors.lake import lake_at
    from dealeriq.settings import load
    from dealeriq.warehouse.build import build as build_all

    settings = load()
    report = build_all(
        lake_at(settings.lake, settings.data_dir),
        settings.warehouse.path(settings.data_dir),
        memory_mb=settings.warehouse.memory_mb,
        progress=lambda line: typer.echo(f"dealeriq: {line}", err=True),
    )
    _show(report, as_json)


@app.command("test")
def check_(as_json: Json = False) -> None:
    """Run the tests over the warehouse as it stands; exit 7 when one fails.

    Example: dealeriq warehouse test
    """
    from dealeriq.settings import load
    from dealeriq.warehouse.build import check

    settings = load()
    report = check(settings.warehouse.path(settings.data_dir), memory_mb=settings.warehouse.memory_mb)
    _show(report, as_json)
    if report.failed:
        raise typer.Exit(7)


@app.command()
def ls(as_json: Json = False) -> None:
    """List the warehouse's tables, and the lake's versions that it was built from.

    Example: dealeriq warehouse ls
    """
    from dataclasses import asdict

    from dealeriq.settings import load
    from dealeriq.warehouse.contents import contents

    settings = load()
    tables, versions, when = contents(settings.warehouse.path(settings.data_dir))
    if as_json:
        found = {"built_at": when, "tables": [asdict(each) for each in tables], "lake_versions": dict(versions)}
        typer.echo(json.dumps(found))
        return
    for each in tables:
        typer.echo(f"{each.schema + '.' + each.name:<40} {each.rows:>12,}")
    read = ", ".join(f"{topic} {'-' if at is None else at}" for topic, at in versions)
    typer.echo(f"built {when} from lake versions: {read}", err=True)


def _show(report: BuildReport, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(report.as_dict()))
        return
    for name, words in (*report.failed.items(), *report.warned.items()):
        typer.echo(f"{'failed' if name in report.failed else 'warning'} {name}: {words}")
    typer.echo(
        f"{report.models} models, {report.tests} tests, {len(report.failed)} failed, {report.seconds:.1f} s: "
        f"{report.file}"
    )
