"""`dealeriq index`: the search index, made again from its topics."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["app"]

app = typer.Typer(
    help="Make the search index again from its topics, and look at it.",
    no_args_is_help=True,
    add_completion=False,
)
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


@app.command()
def rebuild(as_json: Json = False) -> None:
    """Make the index again from the compacted topics, beside the one in use, and let it take that one's place.

    A search process that runs goes over to it within a second, and reads on from its position. Nothing is
    encoded.

    Example: dealeriq index rebuild
    """
    from dealeriq.search.rebuild import rebuild as build
    from dealeriq.settings import load

    done = build(load(), lambda line: print(f"dealeriq: {line}", file=sys.stderr))
    if as_json:
        typer.echo(json.dumps(done))
    else:
        held = ", ".join(f"{count:,} {kind} vectors" for kind, count in done["vectors"].items())
        typer.echo(f"{held} of {done['records']:,} records in {done['seconds']:.0f} s")


@app.command("ls")
def versions(as_json: Json = False) -> None:
    """List the versions of the index, and which one is in use.

    Example: dealeriq index ls --json
    """
    from dealeriq.search.folder import folder_of
    from dealeriq.settings import load

    folder = folder_of(load())
    current = folder.current()
    found: list[dict[str, Any]] = [
        {
            "version": each.name,
            "in_use": each == current,
            "bytes": _size(each),
        }
        for each in folder.versions()
    ]
    if as_json:
        typer.echo(json.dumps(found))
        return
    if not found:
        print(f"dealeriq: no index in {folder.root} yet", file=sys.stderr)
    for each in found:
        typer.echo(f"{each['version']}  {each['bytes'] / 1e6:>9,.1f} MB  {'in use' if each['in_use'] else ''}")


def _size(folder: Path) -> int:
    return sum(
        each.stat().st_blocks * 512 for each in folder.rglob("*")
    )  # files are longer than what they hold
