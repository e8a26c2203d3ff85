"""Models on the last weeks of the carried year, beside simple and statistical ones; ONNX beside LightGBM's
predict.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.contract import Claim, Outcome, middle
from benchmarks.history import year_lake
from dealeriq.training import interpreter

__all__ = ["measure"]

_HOW = """The year of orders lies in the lake. Each model is trained as `dealeriq models train` trains it:
inputs from the point-in-time history, split by time, the last weeks never seen (eight for demand, churn
and reorders, four for order lines), {seed_note}. Gains are shares of the other's value; the intervals are 95 %
bootstraps over whole dealers.

- *Demand* (the table): {series} series of a dealer and a category, chosen by chance among those with at
  least 12 weeks before the first forecast, forecast at the start of each of the last eight weeks:
  {forecasts:,} forecasts of seven days. AutoETS and the seasonal naive are `statsforecast`'s on the
  same series of weeks, fitted anew before each week, with their own quantiles. `wql` is the weighted
  quantile loss over 10, 50 and 90 %, `mase` the error of the median over the series' own naive error
  before the first forecast. In FUEL and NUTRITION trees and AutoETS are within one percent of each other:
  another seed may turn them.
- `figures.slices` holds the error of the median beside last week's sales on all {all_rows:,} rows of the
  holdout: all, series that began within four weeks, weeks with and without a holiday, weeks without a sale.
- *Churn* is held against the days since the last order, in four steps; *reorders* (a dealer's category within a
  week) against the dealer's own cadence, the share of earlier weeks with as many lines in 90 days and as long a
  silence; *order lines* against how far
  price and quantity are from the product's usual ones. No one has called an order line wrong in the
  carried data: one line in twenty has a twin that was altered.
- `figures.parts` holds the risks by size of the dealer, category, new entities, weeks with a holiday ahead and
  weekends, each beside the simple one.
- *Prices* are held against the usual demand whatever the price, over products.
- *Speed*: one row at a time, the served session beside LightGBM's own `predict` of the same boosters
  with `num_threads=1`, the library's scikit-learn interface, and MLflow's pyfunc of the same ONNX file, in
  turn, 200 rows at a time, the middle of 15 times. The two cores were busy with others while it ran."""
_WAYS = {
    "estimator": ("one row beside the library's scikit-learn interface", 20.0),
    "booster": ("one row beside LightGBM's Booster.predict", 20.0),
    "pyfunc": ("one row beside MLflow's pyfunc", 1.0),
}
_FEW = (
    "A call of ONNX Runtime's Python interface that only hands its input back takes 4.8 µs, and "
    "Booster.predict 30 to 40 with its trees: no session is 20 times as fast as that. Of 300 trees, in "
    "µs: Session.run 12.4, ONNX Runtime's run 10.7, below its checks 9.4, with input and output bound "
    "once 8.4 (one thread only), with OrtValues 47, without arena 10.3, without memory patterns 9.7; in "
    "batches the trees take 3.5 a row."
)


def measure(short: bool = False, series: str = "", seed: str = "7") -> Outcome:
    """Fill the lake, then train and judge in the training environment."""
    count = int(series or (30 if short else 400))
    with tempfile.TemporaryDirectory(prefix="dealeriq-models-") as name:
        folder = Path(name)
        year_lake(folder / "lake", None)
        job = {"lake": str(folder / "lake"), "series": count, "seed": int(seed), "short": short}
        (folder / "job.json").write_text(json.dumps(job))
        command = [
            interpreter(lambda line: print(line, file=sys.stderr)),
            "-m", "benchmarks.peers.training", str(folder / "job.json"), str(folder / "out.json"),
        ]  # fmt: skip
        subprocess.run(command, check=True, stdout=sys.stderr)
        found: dict[str, Any] = json.loads((folder / "out.json").read_text())
    return Outcome(
        how=_HOW.format(
            series=found["series"],
            forecasts=found["forecasts"],
            all_rows=found["slices"][0]["rows"],
            seed_note=f"seed {seed}",
        ),
        claims=[*_forecast(found), *_classifiers(found), _prices(found), *_speed(found)],
        table=found["departments"],
        figures=found,
    )


def _forecast(found: dict[str, Any]) -> list[Claim]:
    claims = []
    for metric in ("wql", "mase"):
        for other in ("seasonal naive", "AutoETS"):
            gain = found["gains"][f"{metric} {other}"]
            claims.append(
                Claim(
                    f"demand: {metric} lower than {other}'s by", round(100 * gain["gain"], 2), "%", 0.0,
                    spread=(round(100 * gain["low"], 2), round(100 * gain["high"], 2)),
                    why="The trees see no more of a series than five windows.",
                )
            )  # fmt: skip
    better = [row for row in found["departments"] if row["wql"] < min(row["wql, naive"], row["wql, AutoETS"])]
    share = round(100 * len(better) / len(found["departments"]))
    why = (
        "In FUEL and NUTRITION, where series are few and their sales rare, trees and AutoETS are within one "
        "percent of each other, and another seed may turn them; the next line says how many are not chance."
    )
    beaten = len(found["beaten"])
    return [
        *claims,
        Claim("departments where demand's wql is the lowest", share, "%", 100, why=why),
        Claim("departments where another's is lower, and not by chance", beaten, "", 0, at_most=True, why=why),
    ]


def _classifiers(found: dict[str, Any]) -> list[Claim]:
    claims = []
    for row in found["classifiers"]:
        for metric, words in (("auc", "AUC"), ("average precision", "average precision")):
            what = f"{row['']}: {words} {row[metric]}, above the simple one's by"
            claims.append(Claim(what, row[f"{metric} gain"], "%", 0.0, spread=row[f"{metric} spread"]))
        what = f"{row['']}: calibration error, the simple one's being {row['calibration error, simple']}"
        claims.append(
            Claim(
                what, row["calibration error"], "", row["calibration error, simple"], at_most=True,
                why="The simple one is a table of observed shares, which is calibrated by construction.",
            )
        )  # fmt: skip
    return claims


def _prices(found: dict[str, Any]) -> Claim:
    gain = found["prices"]
    return Claim(
        "prices: deviance of demand lower than usual demand's by", round(100 * gain["gain"], 2), "%", 0.0,
        spread=(round(100 * gain["low"], 2), round(100 * gain["high"], 2)),
    )  # fmt: skip


def _speed(found: dict[str, Any]) -> list[Claim]:
    claims = []
    for row in found["speed"]:
        for way, ratios in row["ratios"].items():
            what, aim = _WAYS[way]
            spread = (min(ratios), max(ratios))
            claims.append(Claim(f"{row['']}: {what}", middle(ratios), "×", aim, spread=spread, why=_FEW))
    return claims
