"""Feature writes beside Feast's: a new tile of each entity, and the same entities' rows through Feast."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import count

from benchmarks.contract import Claim, Outcome, middle, ratio
from benchmarks.peer import converse
from benchmarks.store import Filled, filled
from connectors.redis import connect
from features.plan import load as load_plan
from features.tiles import Tile
from features.writer import FeatureWriter

__all__ = ["measure"]

_HOW = """The orders of the carried year's last 90 days lie in one Valkey as tiles of {dealers} dealers
({tiles} tiles each on average), as the running system keeps them. Ours folds one new tile of every dealer and
writes it with its position: after it all {features} features of `dealer_orders` are new. Feast writes a row of
the same {features} features, merged beforehand, of every dealer. Rows a second, runs of {seconds:g} s in turn,
{repeats} times; each side one process.

- *ours, batched*: `FeatureWriter.write`, all dealers a call: guarded, atomic, position beside the data.
- *ours, one a call*: the same with one dealer a call.
- *feast, online_write_batch*: its store alone, from protobufs that were made before the clock ran.
- *feast, write_to_online_store*: from a data frame, its documented way.
- *feast, push*: `FeatureStore.push` of one row a call."""
_WHY = (
    "Ours writes the whole of an entity's tiles, 14 kB, so that a reader fetches them at once; Feast writes 49 "
    "numbers. Half of the time is the store's own, which copies them four times on their way through a script. "
    "On another machine it was 2.9 times (1.3 to 4.2). Tried: a packer and a checksum that copy less, which "
    "stay; 10, 25 and 100 entities a call where it is 50; a shorter turn of the interpreter's threads, which "
    "slows folding as much as it helps sending."
)
_BATCHED = ("online_write_batch", "write_to_online_store")


def measure(short: bool = False, seconds: str = "", repeats: str = "") -> Outcome:
    """Write in each way in turn, `repeats` times."""
    lasts, times = float(seconds or (0.5 if short else 3)), int(repeats or (1 if short else 4))
    rates: dict[str, list[float]] = {}
    with (
        filled(12 if short else None) as store,
        converse("benchmarks.peers.feast_store", "write", str(store.folder)) as feast,
    ):
        client = connect(store.settings.redis)
        writer = FeatureWriter(client, store.view, load_plan().project)
        rows, fresh = store.values(), count(1)
        for _ in range(times):
            for way, size in (("ours, batched", len(store.dealers)), ("ours, one a call", 1)):
                rates.setdefault(way, []).append(_write(writer, store, fresh, size, lasts))
            for way in (*_BATCHED, "push"):
                done = feast.say({"way": way, "rows": rows, "seconds": lasts})
                rates.setdefault(f"feast, {way}", []).append(done["rows"] / done["seconds"])
        client.close()
        _check(store, next(fresh) - 1)
        how = _HOW.format(
            dealers=len(store.dealers),
            tiles=round(sum(map(len, store.tiles.values())) / len(store.dealers)),
            features=len(store.names),
            seconds=lasts,
            repeats=times,
        )
    best = max((f"feast, {way}" for way in _BATCHED), key=lambda way: middle(rates[way]))
    claims = [
        _claim(f"batched writes beside Feast's best ({best.split(', ')[1]})", rates, best, 3),
        _claim("batched writes beside Feast's push of single rows", rates, "feast, push", 100),
    ]
    table = [{"": way, "rows/s": middle(some), "µs a row": middle([1e6 / each for each in some])}
             for way, some in rates.items()]  # fmt: skip
    return Outcome(how, claims, table, {"rows_per_s": rates})


def _claim(what: str, rates: dict[str, list[float]], theirs: str, aim: float) -> Claim:
    value, spread = ratio(rates["ours, batched"], rates[theirs])
    return Claim(what, value, "×", aim, spread=spread, why=_WHY)


def _write(writer: FeatureWriter, store: Filled, fresh: Iterator[int], size: int, seconds: float) -> float:
    """Return how many dealers a second were written, each with a newer state of its newest minute."""
    dealers, done = store.dealers, 0
    groups = [dealers[at : at + size] for at in range(0, len(dealers), size)]
    latest = {dealer: max(store.tiles[(dealer,)], key=_newest) for dealer in dealers}
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        position = next(fresh)
        for group in groups:
            writer.write(
                {(dealer,): [_newer(latest[dealer], position)] for dealer in group},
                {(store.view.topic, 0): position},
            )
            done += len(group)
            if time.perf_counter() - began >= seconds:
                break
    return done / (time.perf_counter() - began)


def _newest(tile: Tile) -> tuple[int, int]:
    return tile.hop_ms, tile.grain_s


def _newer(tile: Tile, by: int) -> Tile:
    return tile._replace(n=tile.n + by, positions=tuple(each + by for each in tile.positions))


def _check(store: Filled, position: int) -> None:
    """The store holds the position that was written last. Raises RuntimeError where not."""
    client = connect(store.settings.redis)
    found = FeatureWriter(client, store.view, load_plan().project).positions()
    client.close()
    if found.get((store.view.topic, 0)) != position:
        raise RuntimeError(f"the store holds {found}, and position {position} was written")
