"""Scoring beside the session, River, MLflow's pyfunc and Quix Streams; swaps; an order's way to its insight."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.contract import Claim, Outcome, middle, ratio
from benchmarks.insight_latency import insight_latency
from benchmarks.lines import made_model, promoted, rate_of_quix, rates_of, with_features
from connectors.kafka import ensure_topics
from connectors.registry import Registry
from dealeriq.runtime import Supervisor
from dealeriq.settings import load
from dealeriq.training import interpreter

__all__ = ["measure"]

_HOW = """One model about a dealer's category ({trees} trees for each of two quantiles, six inputs, one rule),
exported and served as every model is, in one thread and without services. {repeats} times in turn, {rows:,}
entities each time:

- *the raw session* answers their vectors in batches of {batch:,};
- *the stage* (`Scorer.score`) makes the vectors of what was read from the store, answers, and gives all that a
  record of `scores` says: the vector by name, outputs, ids, the rule's reading, and the three strongest reasons
  of each value beyond the threshold ({told:.0%} of them, {inputs} answers more each);
- *messages* are the same, and each score's record as Avro;
- *MLflow's pyfunc* of the same ONNX file answers the same vectors in the same batches;
- *River alone* predicts with a Hoeffding tree regressor that learned 5,000 rows, one row after the other.

For swaps, batches of {probe} entities are scored without a break while another thread promotes one of two
versions {swaps} times: loading, warming, and one assignment. The pause is the longest time without a scored
entity from the begin of a swap to its end, the batch itself counted in. Every batch must have one version
whole, and every entity of it one score.

*Order lines.* A model as large as `order_anomaly` (300 trees, its 26 inputs) scores lines of the carried
year, stamped with the present, from a full topic in four partitions: the process `line-scorer` alone beside
the broker, the registry and Redis. Features of all dealers, categories and products are in Redis; *cold* is
the first {lines:,} lines of a fresh process, which reads each key's for the first time, *warm* the next as
many. The clock is the committed position. One score in a hundred is kept, as set by default. Quix Streams
reads {peers:,} of the same lines, exactly once, too, and asks LightGBM's own predict, without looking any
feature up.

*Order to insight.* The whole system under {rate:,} orders a second; beside them {dealers} dealers order one
odd line at a time, at random moments. The clock starts before the line is handed to the Kafka client, and
stops when HTTP gives its insight. Scores commit every 100 ms, insights with a checkpoint each {interval}
ms."""
_WHY_STAGE = (
    "Two ids a row, texts of different lengths and one join of 400 bytes are left to Python. The session "
    "itself takes {session:.1f} µs a row, the stage {stage:.1f}, with messages {messages:.1f}."
)
_WHY_PAUSE = (
    "Loading and warming take the interpreter's lock and the processor from the batch that runs. As long a "
    "time without a swap had a gap of {calm_ms} ms, too; half of the swaps left one of at most {usual_ms} ms."
)


_WHY_LINES = "The cores are shared by broker, Redis, scorer and others; `cold` by merging features."
_WHY_LATENCY = (
    "The checkpoint's interval is the largest part of it; two cores are shared by all processes of the system, "
    "whose load and markers are on them, too."
)
_PEER_LINES = 20_000


def measure(short: bool = False, repeats: str = "", rate: str = "5000", seconds: str = "") -> Outcome:
    """Measure entities in the training environment, which has the peers; then order lines on real services."""
    job = {"repeats": int(repeats or (2 if short else 9)), "short": short}
    with tempfile.TemporaryDirectory(prefix="dealeriq-scoring-") as name:
        folder = Path(name)
        (folder / "job.json").write_text(json.dumps(job))
        command = [
            interpreter(lambda line: print(line, file=sys.stderr)),
            "-m", "benchmarks.peers.scoring", str(folder / "job.json"), str(folder / "out.json"),
        ]  # fmt: skip
        subprocess.run(command, check=True, stdout=sys.stderr)
        found: dict[str, Any] = json.loads((folder / "out.json").read_text())
    rates, swap = found["rates"], found["swap"]
    why = _WHY_STAGE.format(**{way: 1e6 / middle(rates[way]) for way in ("session", "stage", "messages")})
    claims = [
        Claim(
            "entities scored a second, as messages, one thread", middle(rates["messages"]), "/s", 50_000,
            spread=(min(rates["messages"]), max(rates["messages"])), why=why,
        ),
        _share("the stage's rate as a share of the raw session's", rates, "stage", why),
        _share("the same by processor time", found["processor"], "stage", why),
        _share("the stage's with its messages", rates, "messages", why),
        *_beside(rates),
        Claim(
            "longest pause of a swap", swap["pause_ms"], "ms", 50, at_most=True, why=_WHY_PAUSE.format(**swap),
        ),
        Claim("entities unscored or scored twice by swaps", swap["wrong"], "", 0, at_most=True),
    ]  # fmt: skip
    table = [
        {"way": way, "rows a second": f"{middle(each):,.0f}", "lowest": f"{min(each):,.0f}"}
        for way, each in rates.items()
    ]
    lines = _lines(short, rate, seconds)
    about = found["how"] | lines.pop("how")
    claims += lines.pop("claims")
    table += lines.pop("table")
    return Outcome(_HOW.format(**about), claims, table, found | lines)


def _lines(short: bool, rate: str, seconds: str) -> dict[str, Any]:
    """Order lines: how many a second, beside Quix Streams, and how soon an odd one is an insight."""
    count, peers = (20_000, 2_000) if short else (300_000, _PEER_LINES)
    with tempfile.TemporaryDirectory(prefix="dealeriq-lines-") as name:
        root = Path(name)
        folder = made_model(root)
        with Supervisor(
            load(running=False), ("kafka", "registry", "redis"), root / "data", prefer_default_ports=False
        ) as supervisor:
            settings = supervisor.settings
            ensure_topics(settings.kafka)
            Registry(settings.registry).register_all()
            with_features(settings, count)
            promoted(settings, folder)
            rates = rates_of(supervisor, count, 1 if short else 3)
            quix = rate_of_quix(settings, root / "model.txt", peers, root / "quix")
        lasts_s, warm_s = (float(seconds or (10 if short else 60))), 5.0 if short else 30.0
        seen = insight_latency(root / "system", folder, float(rate), lasts_s, warm_s)
    times = seen["seconds"]
    p50, p99 = (round(times[min(len(times) - 1, int(q * len(times)))] * 1000) for q in (0.5, 0.99))
    warm = rates["warm"]
    claims = [
        Claim(
            "order lines scored a second, exactly once", middle(warm), "/s", 50_000,
            spread=(middle([min(warm)]), middle([max(warm)])), why=_WHY_LINES,
        ),
        Claim("order lines beside Quix Streams with a Python predict", middle([middle(warm) / quix]), "×", 1.0),
        Claim("order line to insight over HTTP, p99", p99, "ms", 2_000, at_most=True, why=_WHY_LATENCY),
    ]  # fmt: skip
    rows = [("order lines, warm", warm), ("order lines, cold", rates["cold"]), ("Quix Streams", [quix])]
    table = [
        {"way": way, "rows a second": f"{middle(each):,.0f}", "lowest": f"{min(each):,.0f}"}
        for way, each in rows
    ]
    how = {
        "lines": count, "peers": peers, "rate": int(float(rate)), "dealers": 4, "interval": seen["interval_ms"],
    }  # fmt: skip
    return {
        "how": how, "claims": claims, "table": table,
        "lines": {"rates": rates, "quix": quix},
        "latency": {**seen, "p50_ms": p50, "p99_ms": p99},
    }  # fmt: skip


def _share(what: str, rates: dict[str, list[float]], way: str, why: str) -> Claim:
    share = [100 * each / raw for each, raw in zip(rates[way], rates["session"], strict=True)]
    return Claim(what, middle(share), "%", 70, spread=(middle([min(share)]), middle([max(share)])), why=why)


def _beside(rates: dict[str, list[float]]) -> list[Claim]:
    claims = []
    for way, words in (("pyfunc", "MLflow's pyfunc predict"), ("river", "River's predict_one")):
        times, spread = ratio(rates["messages"], rates[way])
        why = "It gives bare numbers; the stage gives records that explain themselves."
        claims.append(Claim(f"the stage beside {words}", times, "×", 1.0, spread=spread, why=why))
    return claims
