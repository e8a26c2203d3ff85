"""Feature reads over HTTP beside `feast serve` and the Feast SDK, on the same values in the same store."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from benchmarks.contract import Claim, Outcome, middle, ratio
from benchmarks.load import Result
from benchmarks.peer import ask, child, converse, interpreter, wait_until_answers
from benchmarks.peers import VALUES, VIEW
from benchmarks.ports import free_port
from benchmarks.store import Filled, filled
from benchmarks.tiles import NOW_MS

__all__ = ["measure"]

_HOW = """The orders of the carried year's last 90 days, folded to tiles, lie in one Valkey; a read answers the
{features} features of `dealer_orders` (windows of 1 h to 90 d) of one of {dealers} dealers. One server process
on each side, one load generator with {connections} connections, runs of {seconds:g} s in turn, ours and
Feast's, {repeats} times. The SDK reads 100 dealers a call in its own process; ours answers 100 a request, over
HTTP.

- *ours, merged*: no read can use a merge that was done before: each asks for another minute.
- *ours, as it runs*: a merge is done again only when the tiles or the minute changed.
- *feast, merged*: `feast serve` runs our on-demand view on the same tiles.
- *feast, values*: `feast serve` reads values that were merged beforehand and written by Feast; its windows do
  not slide.

Before the runs every side's answer for every tenth dealer was compared: they were equal."""
_SLOW = "Merging a view's windows is most of the time of a read."
_NOISE = "The tail is the scheduler's: server, store and load generator share two cores with others."

Ways = dict[str, list[dict[str, Any]]]


def measure(short: bool = False, seconds: str = "", repeats: str = "", connections: str = "16") -> Outcome:
    """Run everything in turn, `repeats` times."""
    lasts = float(seconds or (0.5 if short else 4))
    times = int(repeats or (1 if short else 4))
    with filled(12 if short else None) as store:
        folder, ours, theirs = store.folder, free_port(), free_port()
        variables = store.settings.environment() | {
            "DEALERIQ_HTTP__PORT": str(ours),
            "DEALERIQ_HTTP__CLOCK": "event",
        }
        serve = [str(Path(interpreter()).with_name("feast")), "-c", str(folder), "serve"]
        serve += ["--no-access-log", "--max-requests", "1000000000", "-r", "86400", "-p", str(theirs)]
        with (
            child(
                [sys.executable, "-m", "dealeriq.processes", "http"], folder / "http.log", env=variables
            ) as http,
            child(serve, folder / "feast.log") as feast,
            converse("benchmarks.peers.feast_store", "sdk", str(folder)) as sdk,
        ):
            wait_until_answers(f"http://127.0.0.1:{ours}/readyz", http, folder / "http.log")
            wait_until_answers(f"http://127.0.0.1:{theirs}/health", feast, folder / "feast.log")
            one = _one(store, ours, theirs)
            _compare(store, one)
            runs: dict[str, list[Result]] = {way: [] for way in one}
            cpu: dict[str, list[float]] = {way: [] for way in one}
            for _ in range(times):
                for way, requests in one.items():
                    server = http if way.startswith("ours") else feast
                    before = _cpu_s(server)
                    result = _load(requests, lasts, int(connections))
                    runs[way].append(result)
                    cpu[way].append((_cpu_s(server) - before) / result.sent * 1e6)
            many, sdk_times = _many(store, ours, sdk, lasts, times)
    table = [_row(way, runs[way], cpu[way]) for way in runs]
    table += [_row(way, many[way], None) for way in many]
    table += [_sdk_row(way, sdk_times[way]) for way in sdk_times]
    how = _HOW.format(
        features=len(store.names),
        dealers=len(store.dealers),
        connections=connections,
        seconds=lasts,
        repeats=times,
    )
    figures = {
        "runs": {way: [vars(each) for each in some] for way, some in (runs | many).items()},
        "cpu_us": cpu,
    }
    return Outcome(how, _claims(runs, many, sdk_times), table, figures)


def _one(store: Filled, ours: int, theirs: int) -> Ways:
    """The requests for one dealer each, by way; as many dealers in the same order on each side."""
    base = f"http://127.0.0.1:{ours}/v1/features/{VIEW}"
    return {
        "ours, merged": [
            {"url": f"{base}/{dealer}?at={NOW_MS - minute * 60_000}"}
            for minute in range(20)
            for dealer in store.dealers
        ],
        "feast, values": [_feast(theirs, store.names, [dealer], values=True) for dealer in store.dealers],
        "ours, as it runs": [{"url": f"{base}/{dealer}"} for dealer in store.dealers],
        "feast, merged": [_feast(theirs, store.names, [dealer], values=False) for dealer in store.dealers],
    }


def _feast(port: int, names: Sequence[str], dealers: Sequence[str], values: bool) -> dict[str, Any]:
    view = VALUES if values else f"{VIEW}_now"
    entities: dict[str, Any] = {"dealer_id": list(dealers)}
    if not values:
        entities["now_ms"] = [NOW_MS] * len(dealers)
    body = {
        "features": [f"{view}:{name}" for name in names],
        "entities": entities,
        "full_feature_names": not values,
    }
    return {"url": f"http://127.0.0.1:{port}/get-online-features", "method": "POST", "body": body}


def _compare(store: Filled, ways: Ways) -> None:
    """Every side answers the same. Raises RuntimeError where not."""
    for at in range(0, len(store.dealers), 10):
        answers = []
        for requests in ways.values():
            answer = ask(requests[at]["url"], requests[at].get("body"))
            if "results" in answer:
                names = [name.rpartition("__")[2] for name in answer["metadata"]["feature_names"]]
                found = {name: each["values"][0] for name, each in zip(names, answer["results"], strict=True)}
                found.pop("dealer_id", None)
            else:
                found = answer["features"][VIEW]
            answers.append(found)
        for way, found in zip(ways, answers, strict=True):
            if found != answers[0]:
                raise RuntimeError(f"dealer {store.dealers[at]}: {way} answers {found}, the first {answers[0]}")


def _many(
    store: Filled, ours: int, sdk: Any, seconds: float, repeats: int
) -> tuple[dict[str, list[Result]], dict[str, list[list[float]]]]:
    """Hundred dealers a request: ours over HTTP with one request in flight, theirs in its own process."""
    dealers = store.dealers
    groups = [[dealers[(at + i) % len(dealers)] for i in range(100)] for at in range(0, len(dealers), 100)]
    url = f"http://127.0.0.1:{ours}/v1/features"

    def requests(minutes: int) -> list[dict[str, Any]]:
        return [
            {
                "url": url,
                "method": "POST",
                "body": {"views": [VIEW], "at": NOW_MS - minute * 60_000, "entities": group},
            }
            for minute in range(minutes)
            for group in ([{"dealer_id": each} for each in some] for some in groups)
        ]

    ways = {"ours, merged, 100 dealers": requests(20), "ours, as it runs, 100 dealers": requests(1)}
    many: dict[str, list[Result]] = {way: [] for way in ways}
    theirs: dict[str, list[list[float]]] = {"sdk, values, 100 dealers": [], "sdk, merged, 100 dealers": []}
    for _ in range(repeats):
        for (way, some), (their_way, times) in zip(ways.items(), theirs.items(), strict=True):
            many[way].append(_load(some, seconds, 1))
            order = {
                "way": their_way.split(", ")[1],
                "now_ms": NOW_MS,
                "features": store.names,
                "dealers": groups,
            }
            times.append(sdk.say(order | {"seconds": seconds})["times"])
    return many, theirs


def _load(requests: Sequence[dict[str, Any]], seconds: float, connections: int) -> Result:
    """Put load on one server from a process of its own."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.load",
        "--seconds",
        str(seconds),
        "--connections",
        str(connections),
    ]
    done = subprocess.run(command, input=json.dumps(requests), stdout=subprocess.PIPE, text=True, check=True)
    result = Result(**json.loads(done.stdout))
    if result.failed:
        raise RuntimeError(f"{result.failed} of {result.requests} requests failed: {requests[0]['url']}")
    return result


def _cpu_s(server: psutil.Process) -> float:
    family = [server, *server.children(recursive=True)]
    return sum(sum(each.cpu_times()[:2]) for each in family)


def _claims(
    runs: dict[str, list[Result]], many: dict[str, list[Result]], sdk: dict[str, list[list[float]]]
) -> list[Claim]:
    rates = {way: [each.per_second for each in some] for way, some in (runs | many).items()}
    rates |= {way: [len(times) / sum(times) for times in some] for way, some in sdk.items()}
    tails = {way: [each.p99_ms for each in some] for way, some in runs.items()}

    def claim(what: str, ours: str, theirs: str, why: str) -> Claim:
        value, spread = ratio(rates[ours], rates[theirs])
        return Claim(what, value, "×", 10, spread=spread, why=why)

    def tail(what: str, ours: str, theirs: str) -> Claim:
        value, spread = ratio(tails[ours], tails[theirs])
        return Claim(what, value, "×", 0.1, at_most=True, spread=spread, why=_NOISE)

    return [
        claim("reads of one dealer, as it runs, beside `feast serve`", "ours, as it runs", "feast, values", ""),
        claim("the same, every read merged on both sides", "ours, merged", "feast, merged", _SLOW),
        claim("the same, every read of ours merged, none of Feast's", "ours, merged", "feast, values", _SLOW),
        tail("p99 of one dealer, as it runs, beside `feast serve`", "ours, as it runs", "feast, values"),
        tail("the same, every read merged on both sides", "ours, merged", "feast, merged"),
        claim(
            "100 dealers a request, as it runs, beside the SDK",
            "ours, as it runs, 100 dealers", "sdk, values, 100 dealers", "",
        ),
        claim(
            "the same, every read merged on both sides",
            "ours, merged, 100 dealers", "sdk, merged, 100 dealers", _SLOW,
        ),
    ]  # fmt: skip


def _row(way: str, runs: Sequence[Result], cpu_us: Sequence[float] | None) -> dict[str, Any]:
    return {
        "": way,
        "requests/s": middle([each.per_second for each in runs]),
        "p50, ms": middle([each.p50_ms for each in runs]),
        "p99, ms": middle([each.p99_ms for each in runs]),
        "server's CPU a request, µs": "" if cpu_us is None else middle(cpu_us),
    }


def _sdk_row(way: str, runs: Sequence[Sequence[float]]) -> dict[str, Any]:
    def quantile(times: Sequence[float], q: float) -> float:
        return sorted(times)[min(len(times) - 1, int(q * len(times)))] * 1000

    return {
        "": way,
        "requests/s": middle([len(times) / sum(times) for times in runs]),
        "p50, ms": middle([quantile(times, 0.5) for times in runs]),
        "p99, ms": middle([quantile(times, 0.99) for times in runs]),
        "server's CPU a request, µs": "",
    }
