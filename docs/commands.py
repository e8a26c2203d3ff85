"""Writes docs/cli.md from what `--help` says: `.venv/bin/python docs/commands.py`. A test compares the two."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import typer

from dealeriq.cli import app

__all__ = ["render"]

PAGE = Path(__file__).with_name("cli.md")
_HEAD = """# Commands

Written by `docs/commands.py` from each command's `--help`; do not edit. `./run CMD` is `dealeriq CMD` in the
prepared environment.

Data goes to stdout, everything else to stderr; `--json` prints JSON alone. What would destroy something shows
its plan and waits for `--execute`. Exit codes: 0 done, 1 something differs or failed, 2 usage, 3 a setting,
4 a service is not there (try again), 5 a contract is broken, 6 input held bad rows (the good ones went in),
7 stores disagree with the log.
"""


def render() -> str:
    """Return the page."""
    parts = [_HEAD]
    # A parent stands above the root, because the root without one shows only its overview.
    above = click.Context(click.Command("above"))
    root = typer.main.get_command(app)
    for path, command, context in _below("dealeriq", root, above):
        parts.append(_section(path, command, context))
    return "\n".join(parts)


def _below(path: str, command: Any, above: click.Context) -> Iterator[tuple[str, Any, click.Context]]:
    context = click.Context(command, info_name=path.rpartition(" ")[2], parent=above)
    if not hasattr(command, "list_commands"):
        yield path, command, context
        return
    if above.parent is not None:
        yield path, command, context
    for name in command.list_commands(context):
        yield from _below(f"{path} {name}", command.get_command(context, name), context)


def _section(path: str, command: Any, context: click.Context) -> str:
    lines = [f"{'##' if path.count(' ') == 1 else '###'} {path}", ""]
    if not hasattr(command, "list_commands"):
        lines += ["```", f"{path} {' '.join(command.collect_usage_pieces(context))}", "```", ""]
    for paragraph in (command.help or "").strip().split("\n\n"):
        text = " ".join(paragraph.split())
        if text.startswith("Example: "):
            text = f"Example:\n\n```\n{text.removeprefix('Example: ')}\n```"
        lines += [text, ""]
    if hasattr(command, "list_commands"):
        anchor = path.replace(" ", "-")
        names = [f"[`{name}`](#{anchor}-{name})" for name in command.list_commands(context)]
        return "\n".join([*lines, f"Commands: {', '.join(names)}.", ""])
    rows = [record for each in command.params if (record := each.get_help_record(context)) is not None]
    if rows:
        lines += ["| | |", "|---|---|"]
        lines += [f"| `{_cell(name)}` | {_cell(' '.join(text.split()))} |" for name, text in rows]
        lines.append("")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").strip()


if __name__ == "__main__":
    PAGE.write_text(render(), "utf-8")
