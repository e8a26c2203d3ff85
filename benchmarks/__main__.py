"""`./run bench NAME`: run a benchmark and write its figures as JSON."""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Benchmarks on the real system.")


@app.callback()
def _root() -> None:
    """Benchmarks on the real system, each written as JSON with the machine beside it."""


@app.command()
def pipeline(
    orders: Annotated[int | None, typer.Option(min=1, help="Order lines; default: the whole year.")] = None,
    speed: Annotated[str, typer.Option(help="Events a second, or `max`.")] = "max",
    out: Annotated[Path | None, typer.Option(help="Also write the JSON to this file.")] = None,
) -> None:
    """Orders produced → tiles → features readable, from an empty system."""
    from benchmarks.pipeline import measure

    _write({"benchmark": "pipeline", "speed": speed, **measure(orders, speed)}, out)


def _write(figures: dict[str, Any], out: Path | None) -> None:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    machine = {"cores": os.cpu_count(), "memory_gib": memory, "python": platform.python_version()}
    text = json.dumps({"machine": machine, **figures}, indent=1)
    if out is not None:
        out.write_text(text + "\n")
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    app(prog_name="./run bench")
