"""`dealeriq schema`: check, record and register schemas; write their documents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["app"]

app = typer.Typer(
    help="Check, record and register the schemas of topics.", no_args_is_help=True, add_completion=False
)
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


@app.command()
def check(as_json: Json = False) -> None:
    """Refuse a change that cannot read what was ever written; says field, old, new and what to do.

    Example: dealeriq schema check
    """
    from schemas.compatibility import check as findings_of
    from schemas.errors import ContractError, IncompatibleSchemaError

    findings = findings_of()
    if as_json:
        rows = [{name: getattr(each, name) for name in each.__slots__} for each in findings]
        typer.echo(json.dumps({"ok": not findings, "findings": rows}, indent=2))
    else:
        for each in findings:
            typer.echo(f"{each.kind}: {each}")
        if not findings:
            typer.echo("every schema reads all of its recorded history")
    if any(each.kind == "incompatible" for each in findings):
        raise IncompatibleSchemaError(f"{len(findings)} findings; nothing may be recorded or registered")
    if findings:
        raise ContractError(
            f"{len(findings)} schemas differ from their recorded history",
            remedy="Run `dealeriq schema record`.",
        )


@app.command()
def record(as_json: Json = False) -> None:
    """Record changed schemas as new versions in schemas/history; commit them with the change.

    Example: dealeriq schema record
    """
    from schemas.compatibility import record as record_all

    versions = record_all()
    if as_json:
        typer.echo(
            json.dumps([{"subject": subject, "version": number} for subject, number in versions], indent=2)
        )
        return
    for subject, number in versions:
        typer.echo(f"{subject}: recorded version {number}")
    if not versions:
        typer.echo("nothing changed")


@app.command()
def register(as_json: Json = False) -> None:
    """Register every schema in the registry, compatibility set; safe to repeat.

    Example: dealeriq schema register
    """
    from connectors.registry import Registry
    from dealeriq.settings import load
    from schemas.compatibility import require_compatible

    require_compatible()
    ids = Registry(load().registry).register_all()
    if as_json:
        typer.echo(json.dumps(ids, indent=2))
        return
    for subject, schema_id in ids.items():
        typer.echo(f"{schema_id:>8}  {subject}")


@app.command()
def docs(
    directory: Annotated[Path, typer.Option(help="Where the manual lies.")] = Path("docs"),
    as_json: Json = False,
) -> None:
    """Write contracts.md and asyncapi.json from the catalogue.

    Example: dealeriq schema docs
    """
    from schemas.pages import write

    changed = write(directory)
    if as_json:
        typer.echo(json.dumps(changed))
        return
    typer.echo("\n".join(f"wrote {directory / name}" for name in changed) or "nothing changed")
