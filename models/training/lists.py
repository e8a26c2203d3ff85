"""Lists to learn a ranking from: at moments of the past, the candidates that dealers had then.

The lake is folded in event time by the fold that the recommend view runs, and read at each midnight as a reader
would have read then. So what a model is trained on is what it will be given, and nothing of what came later.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from features.history import TIME_COLUMN
from models.inputs import event_column
from models.recommend.candidates import COLUMNS
from models.recommend.dealers import order_key
from models.recommend.decay import seconds_of
from models.recommend.folding import Changes, Folding
from models.recommend.memory import Memory
from models.recommend.records import Item, product_key
from models.recommend.settings import RecommendSettings
from models.spec import DAY_MS
from models.training.events import Stream

__all__ = ["Replay", "candidate_lists"]

Longs = NDArray[np.int64]
_BATCH = 5_000


def candidate_lists(
    stream: Stream,
    settings: RecommendSettings | None = None,
    *,
    a_day: int = 30,
    warm_ms: int = 84 * DAY_MS,
    active_ms: int = 90 * DAY_MS,
) -> pa.Table:
    """Return the rows of lists: dealer, product, midnight, and `COLUMNS` as fields of a scored event.

    A dealer has its turn once a week, on a weekday of its own. Of those who ordered within `active_ms` at most
    `a_day` are taken, drawn by a hash of dealer and day: whoever comes later changes no earlier day. Lists
    begin `warm_ms` after the first order, when what is ordered for the first time in the lake is mostly so.
    """
    settings = settings or RecommendSettings()
    orders = stream.events("orders", ["dealer_id", "order_id", "product_id", "category"])
    if not len(orders):
        return _table([], [], [], {})
    first, end = int(orders["event_time"][0].as_py()), int(orders["event_time"][-1].as_py())
    end = end if stream.until_ms is None else stream.until_ms
    midnights = range((first + warm_ms) // DAY_MS * DAY_MS + DAY_MS, end + 1, DAY_MS)
    replay = Replay(stream, orders, settings)
    dealers: list[str] = []
    at_ms: list[int] = []
    products: list[str] = []
    columns: dict[str, list[NDArray[np.float32]]] = {name: [] for name in COLUMNS}
    for midnight in midnights:
        replay.until(midnight)
        turn = (midnight // DAY_MS) % 7
        waiting = [who for who in replay.active(midnight - active_ms) if _hash(who) % 7 == turn]
        for who in sorted(waiting, key=lambda who: (_hash(f"{who} {midnight}"), who))[:a_day]:
            found = replay.memory.candidates(who, settings)
            rows = found.shortlist(np.array([bool(tail) for tail in found.items.tails], np.bool_))
            for name, values in found.columns(rows).items():
                columns[name].append(values.astype(np.float32))
            dealers += [who] * len(rows)
            at_ms += [midnight] * len(rows)
            products += [found.items.name(row).product_id for row in rows.tolist()]
    return _table(dealers, products, at_ms, columns)


def _table(
    dealers: list[str], products: list[str], at_ms: list[int], columns: dict[str, list[NDArray[np.float32]]]
) -> pa.Table:
    found = {
        event_column(name): pa.array(np.concatenate(parts) if parts else np.empty(0, np.float32))
        for name, parts in columns.items()
    }
    keys = {"dealer_id": pa.array(dealers, pa.string()), "product_id": pa.array(products, pa.string())}
    return pa.table({**keys, TIME_COLUMN: pa.array(at_ms, pa.int64()), **found})


class Replay:
    """The lake, folded in event time up to a moment, batch by batch from the first order on."""

    def __init__(self, stream: Stream, orders: pa.Table, settings: RecommendSettings) -> None:
        self.memory = Memory()
        self._folding = Folding(self.memory, settings.half_life_days)
        self._last: dict[str, int] = {}
        self._orders, self._times = orders, orders["event_time"].to_numpy()
        self._products = _Coded(orders["product_id"], product_key)
        self._baskets = _Coded(orders["order_id"], order_key)
        self._levels = stream.events("inventory", ["dealer_id", "product_id", "on_hand"])
        self._regions = stream.states("dealers", ["dealer_id", "region"])
        self._at = {"orders": 0, "levels": 0, "regions": 0}

    def until(self, at_ms: int) -> None:
        """Fold what had happened by `at_ms`."""
        changes = Changes()
        for each in self._new("regions", self._regions, at_ms).to_pylist():
            changes.region(each["dealer_id"], seconds_of(each["event_time"]), each["region"] or "")
        for each in self._new("levels", self._levels, at_ms).to_pylist():
            level = product_key(each["product_id"]), each["on_hand"], seconds_of(each["event_time"])
            changes.levels[each["dealer_id"]].append(level)
        self.memory.write(self._folding.fold(changes))
        stop = int(np.searchsorted(self._times, at_ms, "right"))
        for start in range(self._at["orders"], stop, _BATCH):
            self.memory.write(self._folding.fold(self._lines(start, min(start + _BATCH, stop))))
        self._at["orders"] = max(stop, self._at["orders"])

    def active(self, since_ms: int) -> Iterator[str]:
        """Yield the dealers that ordered after `since_ms`."""
        return (who for who, last in self._last.items() if last > since_ms)

    def _new(self, name: str, table: pa.Table, at_ms: int) -> pa.Table:
        stop = int(np.searchsorted(table["event_time"].to_numpy(), at_ms, "right")) if len(table) else 0
        start, self._at[name] = self._at[name], max(stop, self._at[name])
        return table.slice(start, max(stop - start, 0))

    def _lines(self, start: int, stop: int) -> Changes:
        changes = Changes()
        some = self._orders.slice(start, stop - start)
        for who, name, category, order, product, time in zip(
            some["dealer_id"].to_pylist(), some["product_id"].to_pylist(), some["category"].to_pylist(),
            self._baskets.keys(start, stop), self._products.keys(start, stop),
            self._times[start:stop].tolist(), strict=True,
        ):  # fmt: skip
            changes.lines[who].append((order, product, seconds_of(time)))
            changes.names[product] = Item(name, category)
            self._last[who] = time
        return changes


class _Coded:
    """A column of texts, each text's key computed once."""

    def __init__(self, column: Any, key: Any) -> None:
        coded = column.combine_chunks().dictionary_encode()
        self._codes: Longs = coded.indices.to_numpy()
        self._keys = np.array([key(each) for each in coded.dictionary.to_pylist()], np.uint64)

    def keys(self, start: int, stop: int) -> list[int]:
        """Return the keys of rows."""
        found: list[int] = self._keys[self._codes[start:stop]].tolist()
        return found


def _hash(text: str) -> int:
    return xxh3_64_intdigest(text.encode())
