"""In the training environment: the stage, the raw session, MLflow's pyfunc and River, in turn; and swaps.

`python -m benchmarks.peers.scoring JOB OUT` reads and writes JSON.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from features.latest import Latest
from features.plan import Plan, load
from models.artifact import Description, save, version_of
from models.inputs import Code, Feature, Input, Ratio
from models.lifecycle import Lifecycle, decision
from models.rules import InsightRule
from models.runtime import Session
from models.training.boosted import Boosted, boost
from streams.scoring.scorer import Changes, Scorer
from streams.scoring.scores import Scores
from streams.scoring.served import ServedModels

VIEW = "dealer_category_orders"
INPUTS: tuple[Input, ...] = (
    Feature("week", VIEW, "amount_sum_7d"), Feature("month", VIEW, "amount_sum_30d"),
    Feature("count", VIEW, "count_7d"), Feature("dealer_month", "dealer_orders", "amount_sum_30d"),
    Ratio("trend", "week", "month", 30 / 7), Code("kind", "category", ("FUEL", "GROCERY")),
)  # fmt: skip
BATCH, PROBE, TREES, HOUR = 2_000, 20, 100, 3_600_000
NOON = 1_500_000_000_000 // HOUR * HOUR
NAME = "bench"


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Return rates by way, and what swaps cost."""
    short = job["short"]
    rows = 10_000 if short else 100_000
    with tempfile.TemporaryDirectory() as name:
        folders = [_version(Path(name), seed) for seed in (1, 2)]
        plan = load()
        session = Session(folders[0])
        scorer = Scorer(session, plan)
        batches = _read(rows)
        scored = [scorer.score(*batch, HOUR)[0] for batch in batches]
        assert sum(map(len, scored)) == rows
        told = sum(len(each.readings.told) for each in scored) / rows
        parts = [each.vectors for each in scored]
        vectors = np.concatenate(parts)

        def stage(batch: tuple[Changes, Latest]) -> Scores:
            return scorer.score(*batch, HOUR)[0]

        ways = {
            "session": lambda: _each(session.run, parts),
            "stage": lambda: _each(stage, batches),
            "messages": lambda: _each(lambda each: scorer.messages(stage(each), 1), batches),
            "pyfunc": _pyfunc(folders[0], Path(name) / "pyfunc", parts),
            "river": _river(vectors[: 2_000 if short else 10_000], session),
        }
        counts = {"river": 2_000 if short else 10_000}
        rates: dict[str, list[float]] = {way: [] for way in ways}
        processor: dict[str, list[float]] = {way: [] for way in ways}
        order = list(ways)
        for number in range(job["repeats"]):
            first = number % len(order)  # what runs before leaves its mark: each comes behind each in turn
            for way in order[first:] + order[:first]:
                run = ways[way]
                began, used = time.perf_counter(), time.process_time()
                run()
                rates[way].append(counts.get(way, rows) / (time.perf_counter() - began))
                processor[way].append(counts.get(way, rows) / (time.process_time() - used))
        swaps = 4 if short else 40
        how = {
            "trees": TREES, "rows": rows, "batch": BATCH, "repeats": job["repeats"], "told": told,
            "swaps": swaps, "probe": PROBE, "inputs": len(INPUTS),
        }  # fmt: skip
        return {
            "rates": rates,
            "processor": processor,
            "swap": _swap(plan, folders, _read(PROBE, PROBE)[0], swaps),
            "how": how,
        }


def _each(do: Callable[[Any], Any], batches: Iterable[Any]) -> None:
    """Nothing is kept: whoever scores sends a batch on before the next."""
    for batch in batches:
        do(batch)


def _version(root: Path, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    x = rng.gamma(2.0, 60.0, (5_000, len(INPUTS))).astype(np.float32)
    x[rng.random(x.shape) < 0.05] = np.nan
    y = np.log1p(np.nan_to_num(x[:, 0]))
    boosters = [
        boost({"objective": "quantile", "alpha": a, "num_leaves": 31}, x, y, (x, y), seed=seed, rounds=TREES)
        for a in (0.5, 0.9)
    ]
    onnx = Boosted(boosters, "log").to_onnx()
    rule = InsightRule(
        "busy", "high", 400.0, "warning", "{subject_id} sells {score:.0f}: {reasons}.", hysteresis=20.0,
        cool_down_ms=0,
    )  # fmt: skip
    version = version_of(NOON + seed, onnx, INPUTS, 1)
    told = Description(
        NAME, version, 1, ("dealer_id", "category"), "dealer_category", INPUTS, ("low", "high"), "high",
        hashlib.sha256(onnx).hexdigest(), NOON, reference=(60.0, 120.0, 5.0, 200.0, 1.0, 0.0), rules=(rule,),
    )  # fmt: skip
    return save(root / NAME / version, told, onnx)


def _read(rows: int, batch: int = BATCH) -> list[tuple[Changes, Latest]]:
    """Batches of entities as a reader of the store gives them."""
    rng = np.random.default_rng(3)
    drawn = rng.gamma(2.0, 60.0, (rows, 4))
    names = [f"{each.view}__{each.feature}" for each in INPUTS if isinstance(each, Feature)]
    found = []
    for first in range(0, rows, batch):
        at = range(first, first + batch)
        keys = {
            "dealer_id": [str(row % 457) for row in at],
            "category": ["GROCERY" if row % 3 else f"C{row % 50}" for row in at],
        }
        values = dict(zip(names, np.ascontiguousarray(drawn[first : first + batch].T), strict=True))
        times = NOON + np.arange(first, first + batch)
        changes = Changes(keys, [f"tile-{row}" for row in at])
        found.append((changes, Latest(np.ones(batch, bool), times, values)))
    return found


def _pyfunc(folder: Path, room: Path, parts: list[Any]) -> Callable[[], Any]:
    import mlflow.onnx
    import mlflow.pyfunc
    import onnx

    mlflow.onnx.save_model(onnx.load(folder / "model.onnx"), room, pip_requirements=["onnxruntime"])
    model = mlflow.pyfunc.load_model(str(room))
    return lambda: _each(model.predict, parts)


def _river(vectors: Any, session: Session) -> Callable[[], Any]:
    from river.tree import HoeffdingTreeRegressor

    names = [each.name for each in INPUTS]
    rows = [dict(zip(names, row, strict=True)) for row in np.nan_to_num(vectors).tolist()]
    truth = session.scores(session.run(vectors)).tolist()
    model = HoeffdingTreeRegressor()
    for row, y in zip(rows[:5_000], truth, strict=False):
        model.learn_one(row, y)
    return lambda: _each(model.predict_one, rows)


def _swap(plan: Plan, folders: list[Path], batch: tuple[Changes, Latest], swaps: int) -> dict[str, Any]:
    """Score small batches without a break while champions change, and note when each one is done.

    A pause is the longest time without a scored entity while a version was loaded and swapped in; as long a
    moment passes before each swap without one, and its longest such time is what the machine does by itself.
    """
    registry, models, at = Lifecycle(), ServedModels(plan), 0

    def step(version: str, stage: str, **more: str) -> None:
        nonlocal at
        state = registry.state(NAME)
        made = decision(state, version, stage, "bench", cause=f"c{at}", event_time=NOON, reason="gates", **more)
        registry.apply(made, at)
        at += 1

    for folder in folders:
        step(folder.name, "registered", artifact=str(folder))
    step(folders[0].name, "champion")
    models.refresh(registry)
    stop, done, versions, wrong = threading.Event(), [time.perf_counter()], [""], 0

    def score() -> None:
        nonlocal wrong
        while not stop.is_set():
            scorer = models.current()[NAME].champion
            scores, without = scorer.score(*batch, HOUR)
            values = scorer.messages(scores, 1)
            done.append(time.perf_counter())
            versions.append(scorer.version)
            wrong += without + abs(len(batch[0]) - len(set(scores.event_ids))) + abs(len(values) - len(scores))

    thread = threading.Thread(target=score)
    thread.start()
    spans: dict[str, list[tuple[float, float]]] = {"calm": [], "swap": []}
    lasts = 0.05
    for number in range(swaps):
        time.sleep(0.2)
        began = time.perf_counter()
        time.sleep(lasts)
        spans["calm"].append((began, time.perf_counter()))
        step(folders[(number + 1) % 2].name, "champion")
        began = time.perf_counter()
        models.refresh(registry)
        ended = time.perf_counter()
        spans["swap"].append((began, ended))
        lasts = ended - began
    time.sleep(0.2)
    stop.set()
    thread.join()
    ends = np.array(done)
    gaps = np.diff(ends) * 1000
    pauses = {
        met: [float(gaps[(ends[1:] > began) & (ends[:-1] < ended)].max(initial=0.0)) for began, ended in each]
        for met, each in spans.items()
    }
    swapped = sum(one != other for one, other in pairwise(versions[1:]))
    return {
        "pause_ms": round(max(pauses["swap"]), 2), "calm_ms": round(max(pauses["calm"]), 2),
        "usual_ms": round(float(np.median(pauses["swap"])), 2), "wrong": wrong + abs(swapped - swaps),
        "swap_takes_ms": round(float(np.median([b - a for a, b in spans["swap"]])) * 1000, 2),
        "batches": len(gaps),
    }  # fmt: skip


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text())
    Path(sys.argv[2]).write_text(json.dumps(main(given)))
