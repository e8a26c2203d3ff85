"""`./run bench NAME`: run a benchmark, print its figures as JSON and keep them for the report."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.catalogue import BENCHMARKS
from benchmarks.contract import Benchmark
from benchmarks.machine import describe
from benchmarks.report import PAGE, RESULTS, render

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Benchmarks on the real system, beside their peers where there are any.",
)


def _command(benchmark: Benchmark) -> None:
    def run(
        short: Annotated[
            bool, typer.Option("--short", help="Show in seconds that it runs; keep no result.")
        ] = False,
        option: Annotated[
            list[str], typer.Option("--option", "-o", help="NAME=VALUE, an option of this benchmark.")
        ] = [],  # noqa: B006  typer copies it
        out: Annotated[Path | None, typer.Option(help="Write the JSON to this file instead.")] = None,
    ) -> None:
        given = dict(each.partition("=")[::2] for each in option)
        began = time.monotonic()
        outcome = importlib.import_module(benchmark.module).measure(short=short, **given)
        figures = {
            "benchmark": benchmark.name,
            "at": datetime.now(UTC).strftime("%Y-%m-%d"),
            "seconds": round(time.monotonic() - began, 1),
            "short": short,
            "options": given,
            "machine": describe(),
            "how": outcome.how,
            "claims": [claim.to_json() for claim in outcome.claims],
            "table": list(outcome.table),
            "figures": outcome.figures,
        }
        text = json.dumps(figures, indent=1, ensure_ascii=False) + "\n"
        if out is None and not short:
            RESULTS.mkdir(exist_ok=True)
            out = RESULTS / f"{benchmark.name}.json"
        if out is not None:
            out.write_text(text, "utf-8")
        sys.stdout.write(text)

    app.command(benchmark.name, help=benchmark.about)(run)


for _each in BENCHMARKS:
    _command(_each)


@app.command("all")
def run_all(
    short: Annotated[bool, typer.Option("--short", help="Show in seconds each that they run.")] = False,
) -> None:
    """Run every benchmark in turn, each in a process of its own, then write the report."""
    failed = []
    for benchmark in BENCHMARKS:
        typer.echo(f"{benchmark.name}: {benchmark.about}", err=True)
        command = [sys.executable, "-m", "benchmarks", benchmark.name, *(["--short"] if short else [])]
        if subprocess.run(command, check=False).returncode:
            failed.append(benchmark.name)
    if not short:
        report()
    if failed:
        typer.echo(f"failed: {', '.join(failed)}", err=True)
        raise typer.Exit(1)


@app.command()
def report() -> None:
    """Write docs/benchmarks.md from the results that were kept."""
    PAGE.write_text(render(), "utf-8")
    typer.echo(f"wrote {PAGE}", err=True)


if __name__ == "__main__":
    app(prog_name="./run bench")
