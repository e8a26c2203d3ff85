"""What dealers are recommended, judged by what they order for the first time in the week after."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
import redis
from numpy.typing import NDArray

from benchmarks.contract import Claim, Outcome
from connectors import demo_data
from dealeriq.runtime import Supervisor
from dealeriq.settings import load
from schemas.catalogue import topic
from schemas.codec import Encoder
from streams.labels.message import HeldMessage
from streams.recommend.rank import Ranking, Recommendations
from streams.recommend.store import RecommendStore
from streams.views.recommend_view import RecommendView

__all__ = ["measure"]

_HOW = """The carried year goes through the recommend view itself into a store of its own, batch by batch,
up to the beginning of day {days} of the year. There each dealer is recommended {top} products, and right
are those that it orders for the first time in the seven days that follow ({pairs:,} cases of a dealer and a
week with any). The view was designed on the weeks from days 280, 294, 308, 322, 336 and 350 on; none of
those is judged here. Beside it, from the same orders with the same half-life: what is ordered most,
everywhere and in the dealer's region, and what the most other dealers ordered for the first time; each
without what the dealer had before. `recall` is the share of what was right that is among the {top}.
Intervals are 95 %, from 2,000 bootstrap samples of whole dealers, paired where two are compared. A read is
three round trips and the ranking, in one process, {top} products of every dealer in turn."""
_TOP = 20
_WEEKS = (203, 231, 259, 287, 301, 315, 329, 343)
_SHORT = (14, 21)
_BATCH = 5_000
_HALF_LIFE_MS = 28 * 86_400_000
_DAY_MS = 86_400_000
_PROJECT = "bench"


class _Message(HeldMessage):
    """A Kafka message, produced when it is looked at."""

    def __init__(self, name: str, offset: int, value: bytes) -> None:
        super().__init__(name, 0, offset, None, value, [])

    def timestamp(self) -> tuple[int, int]:
        """When it was produced, ms since the epoch."""
        return 1, int(time.time() * 1000)


def measure(short: bool = False) -> Outcome:
    """Fold, ask before each week, and compare with what was ordered in it."""
    weeks = _SHORT if short else _WEEKS
    settings = load()
    settings.redis.url = None
    with Supervisor(settings, ("redis",), prefer_default_ports=False) as running:
        client = redis.Redis.from_url(running.settings.redis.address)
        return _measured(client, weeks)


def _measured(client: Any, weeks: tuple[int, ...]) -> Outcome:
    source = demo_data.source("orders")
    starts = {day: int(np.searchsorted(source.times, demo_data.YEAR_START_MS + day * _DAY_MS)) for day in weeks}
    end = int(np.searchsorted(source.times, demo_data.YEAR_START_MS + (weeks[-1] + 7) * _DAY_MS))
    columns = ["event_id", "dealer_id", "product_id", "order_id", "event_time"]
    frames = (source.frame(at, min(at + 100_000, end)) for at in range(0, end, 100_000))
    lines = pl.concat([each.select(columns) for each in frames])
    regions = demo_data.source("dealers").frame(0, 457).select("dealer_id", "region")
    before = int(client.info("memory")["used_memory"])
    fold = _Fold(client)
    rows: list[dict[str, Any]] = []
    reads: list[float] = []
    for day in weeks:
        fold.until(starts[day])
        past, week = lines.head(starts[day]), _week(lines, starts[day], day)
        ranked = _others(past, regions)
        known = {who: set(some) for who, some in past.group_by("dealer_id").agg("product_id").iter_rows()}
        for who, right in week.items():
            began = time.perf_counter()
            found = _read(client, who)
            reads.append(time.perf_counter() - began)
            ways = {"recommendations": [each.product_id for each in found.items]}
            for way, lists in ranked.items():
                ways[way] = [each for each in lists(who) if each not in known.get(who, ())][:_TOP]
            rows += [
                {"dealer": who, "by": way, "recall": _recall(some, right), "ndcg": _ndcg(some, right)}
                for way, some in ways.items()
            ]
    held = int(client.info("memory")["used_memory"]) - before
    return _outcome(pl.DataFrame(rows), weeks, reads, fold, held)


class _Fold:
    """The view, and how far and how fast it came."""

    def __init__(self, client: Any) -> None:
        names = {1: "orders", 2: "inventory", 3: "dealers"}
        self._encode = Encoder("orders", 1).encode
        self._view = RecommendView(RecommendStore(client, _PROJECT), lambda number: topic(names[number]).schema)
        self._view.positions()
        dealers = demo_data.source("dealers").frame(0, 457).to_dicts()
        encode = Encoder("dealers", 3).encode
        self._view.apply([_Message("dealers", i, encode(each)) for i, each in enumerate(dealers)])
        self.lines, self.cpu_s = 0, 0.0

    def until(self, stop: int) -> None:
        """Fold the lines before `stop`."""
        source = demo_data.source("orders")
        while self.lines < stop:
            upper = min(self.lines + _BATCH, stop)
            some = source.frame(self.lines, upper).to_dicts()
            messages = [_Message("orders", self.lines + i, self._encode(each)) for i, each in enumerate(some)]
            began = time.process_time()
            self._view.apply(messages)
            self.cpu_s += time.process_time() - began
            self.lines = upper


def _read(client: Any, dealer: str) -> Recommendations:
    steps = Ranking(_PROJECT).steps(dealer, _TOP)
    commands = next(steps)
    while True:
        pipeline = client.pipeline(transaction=False)
        for each in commands:
            pipeline.execute_command(*each)
        try:
            commands = steps.send(pipeline.execute())
        except StopIteration as done:
            found: Recommendations = done.value
            return found


def _week(lines: pl.DataFrame, start: int, day: int) -> dict[str, set[str]]:
    """Dealer → the products that it orders for the first time in the seven days from `start` on."""
    end_ms = demo_data.YEAR_START_MS + (day + 7) * _DAY_MS
    week = lines.slice(start).filter(pl.col("event_time") < end_ms).select("dealer_id", "product_id").unique()
    fresh = week.join(lines.head(start), on=["dealer_id", "product_id"], how="anti")
    return {
        who: set(some) for who, some in fresh.group_by("dealer_id").agg("product_id").sort("dealer_id").rows()
    }


def _others(past: pl.DataFrame, regions: pl.DataFrame) -> Mapping[str, Any]:
    """The simpler ways: each from a dealer to products, the best first."""
    now = past["event_time"].max()
    weight = (0.5 ** ((now - pl.col("event_time")) / _HALF_LIFE_MS)).alias("weight")
    once = past.unique(["order_id", "product_id"], keep="first", maintain_order=True).with_columns(weight)
    first = once.unique(["dealer_id", "product_id"], keep="first", maintain_order=True)
    order = ["weight", "product_id"]

    def ranked(frame: pl.DataFrame) -> list[str]:
        totals = frame.group_by("product_id").agg(pl.col("weight").sum())
        return totals.sort(order, descending=[True, False])["product_id"].to_list()

    everywhere, uptake = ranked(once), ranked(first)
    placed = once.join(regions, on="dealer_id")
    by_region = {name: ranked(placed.filter(pl.col("region") == name)) for name in regions["region"].unique()}
    region_of = dict(regions.rows())
    return {
        "most ordered": lambda who: everywhere,
        "most ordered in the region": lambda who: by_region[region_of[who]],
        "most first orders": lambda who: uptake,
    }


def _recall(ranked: list[str], right: set[str]) -> float:
    return len(right.intersection(ranked)) / len(right)


def _ndcg(ranked: list[str], right: set[str]) -> float:
    gain = sum(1 / np.log2(place + 2) for place, each in enumerate(ranked) if each in right)
    return float(gain / sum(1 / np.log2(place + 2) for place in range(min(_TOP, len(right)))))


def _interval(dealers: NDArray[Any], values: NDArray[Any]) -> tuple[float, float]:
    """95 % of the means of samples of whole dealers."""
    _, which = np.unique(dealers, return_inverse=True)
    total, count = np.bincount(which, values), np.bincount(which)
    drawn = np.random.default_rng(11).integers(0, len(total), (2_000, len(total)))
    means = total[drawn].sum(axis=1) / count[drawn].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return round(float(low), 4), round(float(high), 4)


def _outcome(rows: pl.DataFrame, weeks: tuple[int, ...], reads: list[float], fold: _Fold, held: int) -> Outcome:
    table, claims = [], []
    ours = rows.filter(pl.col("by") == "recommendations")
    dealers = ours["dealer"].to_numpy()
    for (way,), some in rows.group_by(["by"], maintain_order=True):
        row: dict[str, Any] = {"": way}
        for name, label in (("recall", f"recall@{_TOP}"), ("ndcg", f"nDCG@{_TOP}")):
            low, high = _interval(dealers, some[name].to_numpy())
            row |= {
                label: f"{float(some[name].to_numpy().mean()):.4f}",
                f"95 %, {name}": f"{low:.4f} to {high:.4f}",
            }
        table.append(row)
    popular = rows.filter(pl.col("by") == "most ordered")
    for name, label in (("recall", f"recall@{_TOP}"), ("ndcg", f"nDCG@{_TOP}")):
        low, high = _interval(dealers, ours[name].to_numpy() - popular[name].to_numpy())
        what = f"{label} above what is ordered most: lower end of the interval"
        claims.append(Claim(what, low, "", 0.0001, spread=(low, high)))
    p50, p99 = (round(float(each) * 1000, 2) for each in np.percentile(reads, [50, 99]))
    claims += [
        Claim("a read, p50", p50, "ms", 5.0, at_most=True, why="It reads some 900 products and ranks them."),
        Claim("the store, of all that was folded", round(held / 1e6, 1), "MB", 64.0, at_most=True),
        Claim("lines folded a second of processor time", round(fold.lines / fold.cpu_s), "lines/s", 10_000),
    ]
    days = ", ".join(map(str, weeks[:-1])) + f" and {weeks[-1]}"
    how = _HOW.format(days=days, top=_TOP, pairs=len(ours))
    return Outcome(how, claims, table, {"lines": fold.lines, "read p99, ms": p99, "store bytes": held})
