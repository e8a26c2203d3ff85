"""The live terminal view: processes, rates, lag, freshness, a few dealers' features, addresses to open."""

from __future__ import annotations

import json
import time
import urllib.request
from datetime import UTC, datetime
from typing import Any

from rich.columns import Columns
from rich.console import Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from dealeriq.demo.progress import Reading, read
from dealeriq.system import System

__all__ = ["draw", "features_shown", "watch"]

_SHOWN = ("367", "406", "356", "292")
_FEATURES = (
    "count_1h",
    "amount_sum_1h",
    "amount_sum_24h",
    "amount_mean_7d",
    "amount_std_30d",
    "product_id_distinct_7d",
)


def watch(system: System, every_s: float = 1.0) -> None:
    """Draw until Ctrl-C."""
    before = read(system)
    with Live(draw(system, before, before, {}), screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(every_s)
            now = read(system)
            live.update(draw(system, before, now, features_shown(system)), refresh=True)
            before = now


def draw(system: System, before: Reading, now: Reading, features: dict[str, dict[str, Any]]) -> Group:
    """Return one picture; `features` are feature values by dealer."""
    clock = "no event yet"
    if now.clock_ms:
        clock = f"{datetime.fromtimestamp(now.clock_ms / 1000, UTC):%A %d %B %Y, %H:%M} UTC"
    head = Text.assemble(("DealerIQ ", "bold cyan"), ("event time ", "dim"), (clock, "bold"))
    return Group(
        head,
        Columns([_services(system), _flow(before, now)], padding=(0, 2)),
        _dealers(features),
        _addresses(system),
    )


def _services(system: System) -> Panel:
    table = Table(box=None, pad_edge=False)
    for name, side in (("process", "left"), ("state", "left"), ("MiB", "right"), ("restarts", "right")):
        table.add_column(name, justify=side)  # type: ignore[arg-type]
    total = 0
    for each in system.supervisor.status():
        total += each.rss
        colour = "green" if each.state in ("ready", "given", "done") else "yellow"
        colour = "red" if each.state == "failed" else colour
        restarts = f"[yellow]{each.restarts}[/]" if each.restarts else "0"
        table.add_row(each.name, f"[{colour}]{each.state}[/]", f"{each.rss >> 20:,}", restarts)
    table.add_row("[dim]together[/]", "", f"[dim]{total >> 20:,}[/]", "")
    return Panel(table, title="processes", border_style="dim")


def _flow(before: Reading, now: Reading) -> Panel:
    seconds = max(now.at_s - before.at_s, 1e-9)
    table = Table(box=None, pad_edge=False)
    for name, side in (("stage", "left"), ("outcome", "left"), ("so far", "right"), ("per s", "right")):
        table.add_column(name, justify=side)  # type: ignore[arg-type]

    def rows(stage: str, counts: dict[str, int], earlier: dict[str, int]) -> None:
        for outcome, count in counts.items():
            rate = max(count - earlier.get(outcome, 0), 0) / seconds
            table.add_row(stage, outcome, f"{count:,}", f"{rate:,.0f}")
            stage = ""

    rows("played", now.produced, before.produced)
    rows("Flink", now.flink, before.flink)
    for stage, counts in now.stages.items():
        rows(stage, counts, before.stages.get(stage, {}))
    fresh = ", ".join(
        f"{name.removesuffix('_s')} {value * 1000:,.0f} ms" for name, value in now.freshness.items()
    )
    table.add_row("[dim]to read[/]", "", f"{now.lag:,}", "")
    return Panel(table, title="flow", subtitle=f"readable after: {fresh or 'no tile yet'}", border_style="dim")


def _dealers(features: dict[str, dict[str, Any]]) -> Panel:
    table = Table(box=None, pad_edge=False)
    table.add_column("dealer")
    for name in _FEATURES:
        table.add_column(name, justify="right")
    for dealer, values in features.items():
        table.add_row(dealer, *(_number(values.get(name)) for name in _FEATURES))
    return Panel(table, title="features, merged at read", border_style="dim")


def _number(value: Any) -> str:
    if value is None:
        return "[dim]–[/]"
    return f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"


def _addresses(system: System) -> Text:
    settings = system.supervisor.settings
    return Text.assemble(
        ("features ", "dim"), f"{settings.http.url}  ",
        ("Flink ", "dim"), f"{settings.flink.url}  ",
        ("registry ", "dim"), f"{settings.registry.url}  ",
        ("Kafka ", "dim"), f"{settings.kafka.bootstrap}  ",
        ("Redis ", "dim"), f"{settings.redis.url}\n",
        ("Ctrl-C ends every process; starting again goes on from here", "dim"),
    )  # fmt: skip


def features_shown(system: System) -> dict[str, dict[str, Any]]:
    """Read the features of the dealers that are shown; one that is not there yet is left out."""
    found = {}
    for dealer in _SHOWN:
        try:
            address = f"{system.supervisor.settings.http.url}/v1/features/dealer_orders/{dealer}"
            with urllib.request.urlopen(address, timeout=1) as answer:
                found[dealer] = json.load(answer)["features"]["dealer_orders"]
        except (OSError, ValueError, KeyError):
            continue
    return found
