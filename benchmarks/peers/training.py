"""What `./run bench models` does in the training environment: train, forecast by statsforecast, time one
row.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.plan import load
from models.artifact import Description, save, version_of
from models.export.parity import check
from models.gates import Interval, compare
from models.runtime import Session
from models.spec import Fitted, TrainingSet
from models.specs import spec as spec_of
from models.training import metrics
from models.training.boosted import Boosted
from models.training.events import Stream
from models.training.linear import Linear
from models.training.report import slices
from models.training.sets import Parts, build, split

__all__ = ["main"]

Floats = NDArray[np.float64]
_LEVELS = (0.1, 0.5, 0.9)
_WEEK = 7 * 86_400_000


def main() -> None:
    """Read the job, write what was found."""
    job_file, out = map(Path, sys.argv[1:])
    job = json.loads(job_file.read_text())
    found: dict[str, Any] = {"classifiers": [], "parts": {}, "speed": []}
    with tempfile.TemporaryDirectory(prefix="dealeriq-bench-") as room:
        for name in ("demand_forecast", "churn", "reorder", "order_anomaly", "price_response"):
            data, parts, fitted, took = _trained(name, job)
            session = _served(data, fitted, Path(room))
            if name == "demand_forecast":
                found |= _demand(data, parts, session, job)
                mlflow_folder = Path(room) / "mlflow"
            elif name == "price_response":
                found["prices"] = _prices(data, parts, session)
                continue
            else:
                found["classifiers"].append(_classifier(data, parts, session, took))
                answers = session.run(data.x[parts.holdout]).astype(np.float64)
                naive = data.spec.baseline(data, parts.holdout)
                found["parts"][name] = slices(data.spec, data, parts.holdout, answers, naive)
            if name == "reorder":
                continue  # as fast as the other trees
            found["speed"].append(_speed(data, parts, fitted, session, mlflow_folder / name, job["short"]))
    out.write_text(json.dumps(found))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _trained(name: str, job: dict[str, Any]) -> tuple[TrainingSet, Parts, Fitted, float]:
    spec = spec_of(name)
    began = time.monotonic()
    data = build(spec, load(), job["lake"])
    parts = split(data)
    fitted = spec.train(data, parts.fit, parts.tune, job["seed"])
    took = time.monotonic() - began
    _say(f"{name}: {len(data):,} rows read and trained in {took:.0f} s")
    return data, parts, fitted, took


def _served(data: TrainingSet, fitted: Fitted, room: Path) -> Session:
    spec, onnx = data.spec, fitted.to_onnx()
    check(fitted, onnx, data.x[:5_000])
    version = version_of(data.as_of_ms, onnx, data.inputs, spec.version)
    told = Description(
        spec.name, version, spec.version, spec.entity, spec.subject_type, data.inputs, spec.outputs, spec.score,
        hashlib.sha256(onnx).hexdigest(), data.as_of_ms,
    )  # fmt: skip
    return Session(save(room / spec.name / version, told, onnx))


def _demand(data: TrainingSet, parts: Parts, session: Session, job: dict[str, Any]) -> dict[str, Any]:
    """The forecast beside statsforecast's on the same series and weeks."""
    first_ms = int(data.time[parts.holdout].min())
    chosen = _chosen(data, parts, job["series"], job["seed"])
    at = parts.holdout[np.isin(_names(data, parts.holdout), chosen)]
    weeks = _weeks(data, at, job["lake"])
    ours = session.run(data.x[at]).astype(np.float64)
    peers = _statistical(data, at, weeks)
    scale = np.array([_naive_error(weeks[name], first_ms) for name in _names(data, at)])
    truth, groups = data.y[at], np.unique(data.key("dealer_id")[at].astype(str), return_inverse=True)[1]
    answers = {"ours": ours, **peers}

    def judged(truth: Floats, given: Floats, weights: Floats | None) -> dict[str, float]:
        rows = given[:, -1].astype(np.int64)
        found = metrics.quantiles(truth, given[:, :-1], _LEVELS, weights)
        return found | {"mase": metrics.mase(truth, given[:, 1], scale[rows], weights)}

    numbered = {name: np.column_stack([each, np.arange(len(at))]) for name, each in answers.items()}
    gains = {}
    for other in peers:
        for metric in ("wql", "mase"):
            found = compare(
                judged,
                metric,
                truth,
                numbered["ours"],
                numbered[other],
                groups.astype(np.int64),
                seed=job["seed"],
            )
            gains[f"{metric} {other}"] = vars(found)
            _say(f"{metric} {other}: {found}")
    departments: list[dict[str, Any]] = []
    beaten: list[str] = []  # where another's loss is lower, and that is not chance
    category = data.key("category")[at]
    for name in sorted(set(category)):
        some = category == name
        if len(set(_names(data, at[some]))) < (1 if job["short"] else 5):
            continue
        means = {who: judged(truth[some], rows[some], None) for who, rows in numbered.items()}
        gain = {
            who: compare(judged, "wql", truth[some], numbered["ours"][some], numbered[who][some],
                         groups[some].astype(np.int64), seed=job["seed"])
            for who in peers
        }  # fmt: skip
        if any(each.high < 0 for each in gain.values()):
            beaten.append(name)
        departments.append(
            {
                "": name,
                "forecasts": int(some.sum()),
                "wql": round(means["ours"]["wql"], 4),
                "wql, naive": round(means["seasonal naive"]["wql"], 4),
                "wql, AutoETS": round(means["AutoETS"]["wql"], 4),
                "less than naive's, %": _interval(gain["seasonal naive"]),
                "less than AutoETS's, %": _interval(gain["AutoETS"]),
                "mase": round(means["ours"]["mase"], 3),
                "mase, naive": round(means["seasonal naive"]["mase"], 3),
                "mase, AutoETS": round(means["AutoETS"]["mase"], 3),
            }
        )
    whole = {who: judged(truth, rows, None) for who, rows in numbered.items()}
    return {
        "departments": departments,
        "beaten": beaten,
        "gains": gains,
        "series": len(chosen),
        "forecasts": len(at),
        "whole": whole,
        "slices": _slices(data, parts, session, job["seed"]),
    }


def _slices(data: TrainingSet, parts: Parts, session: Session, seed: int) -> list[dict[str, Any]]:
    """The forecast beside last week's sales on all rows of the holdout, and where it is hard: young series,
    weeks with a holiday in them, quiet weeks.
    """
    at, spec = parts.holdout, data.spec
    truth, ours = data.y[at], session.run(data.x[at]).astype(np.float64)
    naive, groups = (
        spec.baseline(data, at),
        np.unique(data.key("dealer_id")[at].astype(str), return_inverse=True)[1],
    )
    holiday = data.column("holidays_ahead")[at] > 0
    found = []
    for name, some in (
        ("all", np.ones(len(at), np.bool_)), ("began within four weeks", spec.cold(data)[at]),
        ("a holiday ahead", holiday), ("no holiday ahead", ~holiday), ("nothing sold", truth == 0),
    ):  # fmt: skip
        if some.sum() < 30:
            continue
        gain = compare(spec.metrics, "mae", truth[some], ours[some], naive[some], groups[some], seed=seed)
        found.append(
            {
                "": name,
                "rows": int(some.sum()),
                "mae": round(gain.new, 3),
                "mae, naive": round(gain.other, 3),
                "less, %": _interval(gain),
            }
        )
    return found


def _prices(data: TrainingSet, parts: Parts, session: Session) -> dict[str, Any]:
    """Demand at a price beside the usual demand, whatever the price."""
    at, spec = parts.holdout, data.spec
    groups = np.unique(data.key("product_id")[at].astype(str), return_inverse=True)[1].astype(np.int64)
    answers = session.run(data.x[at]).astype(np.float64)
    found = vars(compare(spec.metrics, "deviance", data.y[at], answers, spec.baseline(data, at), groups))
    _say(f"price_response: {found}")
    return found


def _interval(found: Interval) -> str:
    return f"{100 * found.gain:.1f} ({100 * found.low:.1f} to {100 * found.high:.1f})"


def _names(data: TrainingSet, at: NDArray[np.int64]) -> NDArray[Any]:
    return np.array(
        [f"{d}|{c}" for d, c in zip(data.key("dealer_id")[at], data.key("category")[at], strict=True)]
    )


def _chosen(data: TrainingSet, parts: Parts, count: int, seed: int) -> NDArray[Any]:
    """Series with at least 12 weeks before the holdout, and one in each of its eight."""
    earlier = np.flatnonzero(data.time < data.time[parts.holdout].min())
    old, many = np.unique(_names(data, earlier), return_counts=True)
    new, weeks = np.unique(_names(data, parts.holdout), return_counts=True)
    there = np.intersect1d(old[many >= 12], new[weeks >= 8])
    return np.random.default_rng(seed).choice(there, min(count, len(there)), replace=False)


def _weeks(data: TrainingSet, at: NDArray[np.int64], lake: str) -> dict[str, tuple[NDArray[np.int64], Floats]]:
    """Each series' weeks, aligned with its forecasts: the week's end and what was sold in it."""
    names = np.unique(_names(data, at))
    ends, rows = {}, []
    for name in names:
        last = int(data.time[at][_names(data, at) == name].max())
        begin = 1_483_228_800_000
        ends[name] = np.arange(last, begin + _WEEK, -_WEEK)[::-1]
        rows += [(*name.split("|"), int(end) - _WEEK) for end in ends[name]]
    dealers, categories, times = zip(*rows, strict=True)
    frame = pa.table({"dealer_id": dealers, "category": categories, "event_timestamp": times})
    with Stream(lake) as stream:
        sold = stream.after(frame, "orders", ("dealer_id", "category"), _WEEK, "amount")
    found, start = {}, 0
    for name in names:
        stop = start + len(ends[name])
        found[str(name)] = (ends[name], sold[start:stop])
        start = stop
    return found


def _naive_error(weeks: tuple[NDArray[np.int64], Floats], before_ms: int) -> float:
    sold = weeks[1][weeks[0] <= before_ms]
    return float(np.abs(np.diff(sold)).mean()) if len(sold) > 1 else float("nan")


def _statistical(
    data: TrainingSet, at: NDArray[np.int64], weeks: dict[str, tuple[NDArray[np.int64], Floats]]
) -> dict[str, Floats]:
    """Quantiles of AutoETS and of the naive forecast (last week again: a week is the season of its days)."""
    from statsforecast.models import AutoETS, Naive

    found = {name: np.zeros((len(at), 3)) for name in ("seasonal naive", "AutoETS")}
    makers: dict[str, Callable[[], Any]] = {
        "seasonal naive": lambda: Naive(), "AutoETS": lambda: AutoETS(season_length=1),
    }  # fmt: skip
    began, fallen = time.monotonic(), 0
    for row, (name, now) in enumerate(zip(_names(data, at), data.time[at], strict=True)):
        ends, sold = weeks[str(name)]
        seen = sold[ends <= now]
        start = int(np.argmax(seen > 0))  # a series begins with its first sale
        for who, make in makers.items():
            try:
                given = make().forecast(y=seen[start:], h=1, level=[80])
            # AutoETS says by any of these that a series is too short or constant to fit; StatsForecast's
            # `fallback_model` does then what is done here, and how often is told below.
            except (IndexError, ValueError, NotImplementedError):
                given = Naive().forecast(y=seen[start:], h=1, level=[80])
                fallen += 1
            low, middle, high = given["lo-80"][0], given["mean"][0], given["hi-80"][0]
            found[who][row] = np.sort(np.maximum(np.nan_to_num([low, middle, high]), 0.0))
    took = time.monotonic() - began
    _say(f"statsforecast: {len(at):,} forecasts each in {took:.0f} s, {fallen} by the fallback")
    return found


def _classifier(data: TrainingSet, parts: Parts, session: Session, took: float) -> dict[str, Any]:
    spec, at = data.spec, parts.holdout
    truth, answers = data.y[at], session.run(data.x[at]).astype(np.float64)
    simple = spec.baseline(data, at)
    groups = np.unique(data.key("dealer_id")[at].astype(str), return_inverse=True)[1].astype(np.int64)
    ours, theirs = spec.metrics(truth, answers), spec.metrics(truth, simple)
    row: dict[str, Any] = {"": spec.name, "rows": len(at), "positive": f"{100 * truth.mean():.1f} %"}
    for metric, words in (("auc", "auc"), ("average_precision", "average precision")):
        found = compare(spec.metrics, metric, truth, answers, simple, groups)
        row |= {words: round(ours[metric], 4), f"{words}, simple": round(theirs[metric], 4)}
        row |= {f"{words} gain": round(100 * found.gain, 2)}
        row |= {f"{words} spread": (round(100 * found.low, 2), round(100 * found.high, 2))}
    apart = compare(spec.metrics, "calibration_error", truth, answers, simple, groups)
    row |= {"calibration gain": round(100 * apart.gain, 1)}
    row |= {"calibration spread": (round(100 * apart.low, 1), round(100 * apart.high, 1))}
    cold = spec.cold(data)[at]
    if min(cold.sum(), truth[cold].sum(), (1 - truth[cold]).sum()) >= 20:
        row |= {"rows, cold": int(cold.sum())}
        row |= {"auc, cold": round(spec.metrics(truth[cold], answers[cold])["auc"], 4)}
    row |= {"calibration error": round(ours["calibration_error"], 4)}
    row |= {"calibration error, simple": round(theirs["calibration_error"], 4), "trained in, s": round(took)}
    _say(str(row))
    return row


def _speed(
    data: TrainingSet, parts: Parts, fitted: Fitted, session: Session, room: Path, short: bool
) -> dict[str, Any]:
    """Microseconds of one row each way, in turn."""
    import mlflow.onnx
    import mlflow.pyfunc
    import onnx

    mlflow.onnx.save_model(onnx.load(session.folder / "model.onnx"), room, pip_requirements=["onnxruntime"])
    pyfunc = mlflow.pyfunc.load_model(str(room))
    rows = [data.x[at : at + 1] for at in parts.holdout[:200]]
    ways: dict[str, Callable[[NDArray[np.float32]], Any]] = {
        "onnx": session.run,
        **_library(data, fitted),
        "pyfunc": pyfunc.predict,
    }
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(2 if short else 15):
        for way, answer in ways.items():
            began = time.perf_counter()
            for row in rows:
                answer(row)
            taken[way].append((time.perf_counter() - began) / len(rows) * 1e6)

    def ratios(way: str) -> list[float]:
        return [round(a / b, 2) for a, b in zip(taken[way], taken["onnx"], strict=True)]

    batch = data.x[parts.holdout[:4_096]]
    began = time.perf_counter()
    session.run(batch)
    rate = len(batch) / (time.perf_counter() - began)
    found = {
        "": data.spec.name,
        "trees": int(fitted.facts().get("trees", 0)),
        **{f"{way}, µs a row": round(float(np.median(each)), 1) for way, each in taken.items()},
        "rows/s in batches": round(rate),
        "ratios": {way: ratios(way) for way in ways if way != "onnx"},
    }
    _say(str(found))
    return found


def _library(data: TrainingSet, fitted: Fitted) -> dict[str, Callable[[NDArray[np.float32]], Any]]:
    """How the libraries' users ask for an answer; LightGBM has two ways."""
    if isinstance(fitted, Linear):
        return {"estimator": fitted.predict}
    assert isinstance(fitted, Boosted)
    from lightgbm import LGBMRegressor

    # As many trees behind the interface; which ones does not matter to the time.
    estimators = [
        LGBMRegressor(n_estimators=each.num_trees(), num_leaves=31, n_jobs=1, verbosity=-1).fit(
            np.nan_to_num(data.x[:5_000]), data.y[:5_000]
        )
        for each in fitted.boosters
    ]
    return {
        "booster": lambda row: [each.predict(row, num_threads=1) for each in fitted.boosters],
        "estimator": lambda row: [each.predict(row) for each in estimators],
    }


if __name__ == "__main__":
    main()
