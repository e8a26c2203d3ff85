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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.latest import Moment
from features.merge import MergedRow, Status
from features.plan import Plan, load
from models.artifact import Description, save, version_of
from models.inputs import Code, Feature, Input, Ratio
from models.lifecycle import Lifecycle, decision
from models.rules import InsightRule
from models.runtime import Session
from models.training.boosted import Boosted, boost
from streams.scoring.scorer import Change, Scorer
from streams.scoring.served import ServedModels

VIEW = "dealer_category_orders"
INPUTS: tuple[Input, ...] = (
    Feature("week", VIEW, "amount_sum_7d"), Feature("month", VIEW, "amount_sum_30d"),
    Feature("count", VIEW, "count_7d"), Feature("dealer_month", "dealer_orders", "amount_sum_30d"),
    Ratio("trend", "week", "month", 30 / 7), Code("kind", "category", ("FUEL", "GROCERY")),
)  # fmt: skip
BATCH, TREES, HOUR = 2_000, 100, 3_600_000
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
        changes, moments = _read(plan, rows)
        parts = [slice(at, at + BATCH) for at in range(0, rows, BATCH)]
        vectors = _vectors(plan, scorer, changes, moments)
        records = [each for part in parts for each in scorer.score(changes[part], moments[part], HOUR)[0]]
        assert len(records) == rows
        told = float(np.mean([bool(each["readings"][0]["reasons"]) for each in records]))
        ways = {
            "session": lambda: [session.run(vectors[part]) for part in parts],
            "stage": lambda: [scorer.score(changes[part], moments[part], HOUR) for part in parts],
            "pyfunc": _pyfunc(folders[0], Path(name) / "pyfunc", vectors, parts),
            "river": _river(vectors[: 2_000 if short else 10_000], session),
        }
        counts = {"river": 2_000 if short else 10_000}
        rates: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(job["repeats"]):
            for way, run in ways.items():
                began = time.perf_counter()
                run()
                rates[way].append(counts.get(way, rows) / (time.perf_counter() - began))
        swaps = 4 if short else 40
        how = {
            "trees": TREES, "rows": rows, "batch": BATCH, "repeats": job["repeats"], "told": told,
            "swaps": swaps,
        }  # fmt: skip
        return {
            "rates": rates,
            "swap": _swap(plan, folders, changes[:BATCH], moments[:BATCH], swaps),
            "how": how,
        }


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


def _read(plan: Plan, rows: int) -> tuple[list[Change], list[Moment]]:
    """Entities as a reader of the store gives them."""
    rng = np.random.default_rng(3)
    names = {view: [each.name for each in plan.views[view].features] for view in (VIEW, "dealer_orders")}
    drawn = {view: rng.gamma(2.0, 60.0, (rows, len(have))).tolist() for view, have in names.items()}
    changes = [
        Change({"dealer_id": str(at % 457), "category": "GROCERY" if at % 3 else f"C{at % 50}"}, f"tile-{at}")
        for at in range(rows)
    ]
    moments = [
        Moment(NOON + at, {view: _row(values[at]) for view, values in drawn.items()}) for at in range(rows)
    ]
    return changes, moments


def _row(values: list[float]) -> MergedRow:
    return MergedRow(tuple(values), (Status.PRESENT,) * len(values), NOON + HOUR, NOON)


def _vectors(plan: Plan, scorer: Scorer, changes: list[Change], moments: list[Moment]) -> NDArray[np.float32]:
    columns: dict[str, Any] = {}
    for name in scorer.session.description.features:
        view, _, feature = name.partition(".")
        at = [each.name for each in plan.views[view].features].index(feature)
        columns[f"{view}__{feature}"] = [each.rows[view].values[at] for each in moments]
    columns["category"] = [each.entity["category"] for each in changes]
    columns["dealer_id"] = [each.entity["dealer_id"] for each in changes]
    return scorer.session.vectors(columns, np.array([each.time_ms for each in moments], np.int64))


def _pyfunc(folder: Path, room: Path, vectors: Any, parts: list[slice]) -> Callable[[], Any]:
    import mlflow.onnx
    import mlflow.pyfunc
    import onnx

    mlflow.onnx.save_model(onnx.load(folder / "model.onnx"), room, pip_requirements=["onnxruntime"])
    model = mlflow.pyfunc.load_model(str(room))
    return lambda: [model.predict(vectors[part]) for part in parts]


def _river(vectors: Any, session: Session) -> Callable[[], Any]:
    from river.tree import HoeffdingTreeRegressor

    names = [each.name for each in INPUTS]
    rows = [dict(zip(names, row, strict=True)) for row in np.nan_to_num(vectors).tolist()]
    truth = session.scores(session.run(vectors)).tolist()
    model = HoeffdingTreeRegressor()
    for row, y in zip(rows[:5_000], truth, strict=False):
        model.learn_one(row, y)
    return lambda: [model.predict_one(row) for row in rows]


def _swap(
    plan: Plan, folders: list[Path], changes: list[Change], moments: list[Moment], swaps: int
) -> dict[str, Any]:
    """Score without a break while champions change; how much longer a batch that met a swap took than one that
    met nothing: before each swap as long a moment passes without one, and the longest of each are compared.
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
    stop = threading.Event()
    taken: dict[str, list[float]] = {"nothing": [], "calm": [], "swap": []}
    now, lasts, wrong = "nothing", 0.05, 0

    def score() -> None:
        nonlocal wrong
        while not stop.is_set():
            met, began = now, time.perf_counter()
            records, _ = models.current()[NAME].champion.score(changes, moments, HOUR)
            taken[now if met == "nothing" else met].append(time.perf_counter() - began)
            one_version = len({each["model_version"] for each in records}) == 1
            wrong += abs(len(changes) - len({each["event_id"] for each in records})) + (not one_version)

    thread = threading.Thread(target=score)
    thread.start()
    for number in range(swaps):
        time.sleep(0.3)
        now = "calm"
        time.sleep(lasts)
        now = "nothing"
        time.sleep(0.3)
        step(folders[(number + 1) % 2].name, "champion")
        now, began = "swap", time.perf_counter()
        models.refresh(registry)
        lasts, now = time.perf_counter() - began, "nothing"
    stop.set()
    thread.join()
    longest = {met: round(max(each, default=0.0) * 1000, 2) for met, each in taken.items()}
    return {
        "pause_ms": round(max(longest["swap"] - longest["calm"], 0.0), 2), "longest_ms": longest,
        "usual_ms": round(float(np.median(taken["nothing"])) * 1000, 2), "wrong": wrong,
        "batches": sum(map(len, taken.values())),
    }  # fmt: skip


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text())
    Path(sys.argv[2]).write_text(json.dumps(main(given)))
