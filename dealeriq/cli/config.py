"""`dealeriq config`: each setting, its value, and where that came from."""

import json

import typer

from dealeriq.settings import load


def command(
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object instead of a table."),
    all_: bool = typer.Option(
        True, "--all/--set", help="Every setting, or only those that are not the default."
    ),
) -> None:
    """Show each setting, its value and where that came from. Secrets are masked.

    Example: dealeriq config --set
    """
    values = [value for value in load().values() if all_ or value.source != "default"]
    if as_json:
        described = {
            value.name: {"value": value.shown or None, "source": value.source, "variable": value.variable}
            for value in values
        }
        typer.echo(json.dumps(described, indent=1))
        return
    rows = [(value.name, value.shown or "(unset)", value.source, value.description) for value in values]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    for name, shown, source, description in rows:
        typer.echo(f"{name:<{widths[0]}}  {shown:<{widths[1]}}  {source:<{widths[2]}}  {description}".rstrip())
