"""What dealers are recommended, judged by what they order for the first time in the week after."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import redis

from benchmarks.contract import Claim, Outcome
from benchmarks.ranking import MODEL_WAY, PLAIN_WAY, OneSignal, claims, interval, judged, table, trained
from connectors import demo_data
from dealeriq.runtime import Supervisor
from dealeriq.settings import load
from schemas.catalogue import topic
from schemas.codec import Encoder
from streams.labels.message import HeldMessage
from streams.recommend.rank import Ranker, Ranking, Recommendations
from streams.recommend.store import RecommendStore
from streams.views.recommend_view import RecommendView

__all__ = ["measure"]

_HOW = """The carried year goes through the recommend view itself into a store of its own, batch by batch,
up to the beginning of day {days} of the year. There each dealer is recommended {top} products, and right
are those that it orders for the first time in the seven days that follow ({pairs:,} cases of a dealer and a
week with any). The view was designed on the weeks from days 280, 294, 308, 322, 336 and 350 on; none of
those is judged here. Beside it, from the same orders with the same half-life: what is ordered most,
everywhere and in the dealer's region, and what the most other dealers ordered for the first time; each
without what the dealer had before. `recall` is the share of what was right that is among the {top}, whether
it was a candidate or not. Intervals are 95 %, from 2,000 bootstrap samples of whole dealers, paired where two
are compared. A read is three round trips and the ranking, in one process, {top} products of every dealer in
turn.

- *The table* is of the weeks from day {ranked} on ({lists:,} cases). For them `next_best_products` was trained
  once, as `dealeriq models train` does, from a lake that ends on the first of these days, on {rows:,}
  rows; its own gate's verdict was: {verdict}. The model was designed on a made lake, and not on these weeks.
  Recall and nDCG are of the first 10, MAP of the first 100. What a dealer ordered last, the usual answer to
  what it orders next, has no place in it: none of that can be right.
- `figures.segments` holds the gain in nDCG@10 over the plain score for small, large and cold dealers."""
_TOP = 20
_WEEKS = (203, 231, 259, 287, 301, 315, 329, 343)
_RANKED = 301  # the model is trained as of this day
_SHORT = (287, 301)
_FEW = 10  # dealers of a short run
_LISTED = 100
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
    """Train, fold, ask before each week, and compare with what was ordered in it."""
    weeks = _SHORT if short else _WEEKS
    year = _year(weeks[-1] + 7, _FEW if short else None)
    dealers = demo_data.source("dealers").frame(0, 457)
    settings = load(running=False)
    settings.redis.url = None
    with (
        tempfile.TemporaryDirectory(prefix="dealeriq-recommend-") as room,
        Supervisor(settings, ("redis",), Path(room) / "data", prefer_default_ports=False) as running,
    ):
        result, ranker = trained(Path(room), year, dealers, _day_ms(_RANKED))
        client = redis.Redis.from_url(running.settings.redis.address)
        return _measured(client, weeks, year, dealers, result, ranker)


def _day_ms(day: int) -> int:
    return demo_data.YEAR_START_MS + day * _DAY_MS


def _year(days: int, dealers: int | None) -> pl.DataFrame:
    """The carried lines of some days, in event time; of so many dealers."""
    source = demo_data.source("orders")
    end = int(np.searchsorted(source.times, _day_ms(days)))
    lines = pl.concat([source.frame(at, min(at + 100_000, end)) for at in range(0, end, 100_000)])
    if dealers is None:
        return lines
    some = lines.group_by("dealer_id").len().sort("len", "dealer_id", descending=True)["dealer_id"]
    return lines.filter(pl.col("dealer_id").is_in(some.head(dealers).implode()))


def _measured(
    client: Any, weeks: tuple[int, ...], year: pl.DataFrame, dealers: pl.DataFrame, result: Any, ranker: Ranker
) -> Outcome:
    times = year["event_time"].to_numpy()
    lines = year.select("event_id", "dealer_id", "product_id", "order_id", "event_time")
    regions = dealers.select("dealer_id", "region")
    before = int(client.info("memory")["used_memory"])
    fold = _Fold(client, year)
    rows: list[dict[str, Any]] = []
    ranked: list[dict[str, Any]] = []
    reads: dict[str, list[float]] = {"plain": [], "model": []}
    alone = {"bought together alone": OneSignal("together")}
    for day in weeks:
        start = int(np.searchsorted(times, _day_ms(day)))
        fold.until(start)
        past, week = lines.head(start), _week(lines, start, day)
        others = _others(past, regions)
        known = {who: set(some) for who, some in past.group_by("dealer_id").agg("product_id").iter_rows()}
        size = dict(
            past.filter(pl.col("event_time") >= _day_ms(day - 28)).group_by("dealer_id").len().iter_rows()
        )
        for who, right in week.items():
            found = _read(client, who, reads["plain"])
            popular = {
                way: [each for each in lists(who) if each not in known.get(who, ())][:_LISTED]
                for way, lists in others.items()
            }
            ways = {"recommendations": found} | {way: some[:_TOP] for way, some in popular.items()}
            rows += [
                {"dealer": who, "by": way, "recall": _recall(some, right), "ndcg": _ndcg(some, right)}
                for way, some in ways.items()
            ]
            if day < _RANKED:
                continue
            _read(client, who, reads["model"], ranker)
            lists_of = {
                MODEL_WAY: _read(client, who, [], ranker, _LISTED),
                PLAIN_WAY: _read(client, who, [], None, _LISTED),
                **{way: _read(client, who, [], one, _LISTED) for way, one in alone.items()},
                **popular,
            }
            about = {"dealer": who, "size": size.get(who, 0), "known": len(known.get(who, ()))}
            ranked += [{**about, "by": way, **judged(some, right)} for way, some in lists_of.items()]
    held = int(client.info("memory")["used_memory"]) - before
    return _outcome(pl.DataFrame(rows), pl.DataFrame(ranked), weeks, reads, fold, held, result)


class _Fold:
    """The view, and how far and how fast it came."""

    def __init__(self, client: Any, lines: pl.DataFrame) -> None:
        self._lines = lines
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
        while self.lines < stop:
            upper = min(self.lines + _BATCH, stop)
            some = self._lines.slice(self.lines, upper - self.lines).to_dicts()
            messages = [_Message("orders", self.lines + i, self._encode(each)) for i, each in enumerate(some)]
            began = time.process_time()
            self._view.apply(messages)
            self.cpu_s += time.process_time() - began
            self.lines = upper


def _read(
    client: Any, dealer: str, took: list[float], ranker: Ranker | None = None, limit: int = _TOP
) -> list[str]:
    """A dealer's products, the best first; how long it took is added."""
    began = time.perf_counter()
    steps = Ranking(_PROJECT).steps(dealer, limit, None, ranker)
    commands = next(steps)
    while True:
        pipeline = client.pipeline(transaction=False)
        for each in commands:
            pipeline.execute_command(*each)
        try:
            commands = steps.send(pipeline.execute())
        except StopIteration as done:
            found: Recommendations = done.value
            took.append(time.perf_counter() - began)
            return [each.product_id for each in found.items]


def _week(lines: pl.DataFrame, start: int, day: int) -> dict[str, set[str]]:
    """Dealer → the products that it orders for the first time in the seven days from `start` on."""
    end_ms = _day_ms(day + 7)
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


def _outcome(
    rows: pl.DataFrame,
    ranked: pl.DataFrame,
    weeks: tuple[int, ...],
    reads: Mapping[str, list[float]],
    fold: _Fold,
    held: int,
    result: Any,
) -> Outcome:
    made, segments = claims(ranked)
    ours, popular = (rows.filter(pl.col("by") == way) for way in ("recommendations", "most ordered"))
    dealers = ours["dealer"].to_numpy()
    for name, label in (("recall", f"recall@{_TOP}"), ("ndcg", f"nDCG@{_TOP}")):
        low, high = interval(dealers, ours[name].to_numpy() - popular[name].to_numpy())
        what = f"the plain score: {label} above what is ordered most: lower end of the interval"
        made.append(Claim(what, low, "", 0.0001, spread=(low, high)))
    p50, p99 = (round(float(each) * 1000, 2) for each in np.percentile(reads["plain"], [50, 99]))
    model50, model99 = (round(float(each) * 1000, 2) for each in np.percentile(reads["model"], [50, 99]))
    made += [
        Claim("a read, p50", p50, "ms", 5.0, at_most=True, why="It reads some 900 products and ranks them."),
        Claim(
            "a read ranked by the model, p50", model50, "ms", 10.0, at_most=True,
            why="Some 180 candidates are read, told in numbers and scored beside what a plain read does.",
        ),
        Claim("the store, of all that was folded", round(held / 1e6, 1), "MB", 64.0, at_most=True),
        Claim("lines folded a second of processor time", round(fold.lines / fold.cpu_s), "lines/s", 10_000),
    ]  # fmt: skip
    days = ", ".join(map(str, weeks[:-1])) + f" and {weeks[-1]}"
    how = _HOW.format(
        days=days, top=_TOP, pairs=len(ours), ranked=_RANKED,
        lists=len(ranked.filter(pl.col("by") == MODEL_WAY)),
        rows=sum(int(result["facts"][f"rows_{part}"]) for part in ("fit", "tune", "holdout")),
        verdict=result["text"],
    )  # fmt: skip
    plain = {
        way: {name: round(float(some[name].to_numpy().mean()), 4) for name in ("recall", "ndcg")}
        for (way,), some in rows.group_by(["by"], maintain_order=True)
    }
    figures = {
        "lines": fold.lines, "read p99, ms": p99, "ranked read p99, ms": model99, "store bytes": held,
        "all weeks": plain, "segments": segments, "training": result["facts"], "gate": result["verdict"],
        "holdout": result["metrics"], "holdout, plain": result["baseline"],
    }  # fmt: skip
    return Outcome(how, made, table(ranked), figures)
