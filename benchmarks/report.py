"""docs/benchmarks.md, written from benchmarks/results/*.json."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.catalogue import BENCHMARKS

__all__ = ["PAGE", "RESULTS", "render"]

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"

_INTRODUCTION = """# Benchmarks

Written by `./run bench report` from `benchmarks/results/*.json`; do not edit.

`./run bench NAME` runs one benchmark on the real system and keeps what it saw, `./run bench all` runs each in
turn. Peers run beside us on the same machine in the same minutes, in an environment of their own. Ratios say
more than absolutes: machines differ, and this one is shared. Brackets hold the lowest and the highest of the
repeats.
"""


def render(results: Path = RESULTS) -> str:
    """Return the page. Benchmarks without a kept result are named as not measured."""
    kept = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(results.glob("*.json"))}
    known = [(each, kept.get(each.name)) for each in BENCHMARKS]
    parts = [_INTRODUCTION]
    rows = [
        {
            "benchmark": f"[{name}](#{name})",
            "what": claim["what"],
            "measured": _measured(claim),
            "aim": _aim(claim),
            "": "met" if claim["met"] else "**missed**",
        }
        for name, result in ((each.name, result) for each, result in known if result)
        for claim in result["claims"]
    ]
    parts.append(table(rows))
    missing = [each.name for each, result in known if not result]
    if missing:
        parts.append(f"Not measured yet: {', '.join(missing)}.\n")
    for benchmark, result in known:
        if result:
            parts.append(_section(benchmark.name, benchmark.about, result))
    return "\n".join(parts)


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return rows with the same keys as a Markdown table."""
    rows = list(rows)
    if not rows:
        return ""
    heads = list(rows[0])
    lines = [heads, ["---"] * len(heads), *([_cell(row[head]) for head in heads] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _section(name: str, about: str, result: Mapping[str, Any]) -> str:
    parts = [f"## {name}\n", f"{about}\n", f"{result['how'].strip()}\n"]
    if result["table"]:
        parts.append(table(result["table"]))
    why = _why(result["claims"])
    if why:
        parts.append(f"Missed:\n\n{why}")
    options = "".join(f" -o {key}={value}" for key, value in result.get("options", {}).items())
    parts.append(f"`./run bench {name}{options}`, {result['at']}, on {_machine(result['machine'])}.\n")
    return "\n".join(parts)


def _why(claims: Sequence[Mapping[str, Any]]) -> str:
    return "".join(
        f"- {claim['what']}: {_measured(claim)} where the aim is {_aim(claim)}."
        f"{' ' if claim['why'] else ''}{' '.join(claim['why'].split())}\n"
        for claim in claims
        if not claim["met"]
    )


def _machine(machine: Mapping[str, Any]) -> str:
    return (
        f"{machine['cores']} cores ({machine['processor']}), {machine['memory_gib']} GiB, {machine['system']}, "
        f"Python {machine['python']}"
    )


def _measured(claim: Mapping[str, Any]) -> str:
    spread = f" ({' to '.join(map(_number, claim['spread']))})" if claim["spread"] else ""
    return f"{_with_unit(claim['value'], claim['unit'])}{spread}"


def _aim(claim: Mapping[str, Any]) -> str:
    return f"{'at most' if claim['at_most'] else 'at least'} {_with_unit(claim['aim'], claim['unit'])}"


def _with_unit(value: float, unit: str) -> str:
    return f"{_number(value)}{'' if unit in ('×', '%') else ' '}{unit}"


def _cell(value: Any) -> str:
    return _number(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _number(value: float) -> str:
    if value == 0 or abs(value) >= 100:
        return f"{round(value):,}"
    return f"{value:.3g}"
