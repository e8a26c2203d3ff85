"""The scoring stage beside the session that it runs, River alone and MLflow's pyfunc; and what a swap costs."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.contract import Claim, Outcome, middle, ratio
from dealeriq.training import interpreter

__all__ = ["measure"]

_HOW = """One model about a dealer's category ({trees} trees for each of two quantiles, six inputs, one rule),
exported and served as every model is, in one thread and without services. {repeats} times in turn, {rows:,}
entities each time:

- *the raw session* answers their vectors in batches of {batch:,};
- *the stage* (`Scorer.score`) makes the vectors of what was read from the store, answers, and gives whole
  records of `scores`: the vector by name, outputs, ids, the rule's reading, and the three strongest reasons
  of each value beyond the threshold ({told:.0%} of them);
- *MLflow's pyfunc* of the same ONNX file answers the same vectors in the same batches;
- *River alone* predicts with a Hoeffding tree regressor that learned 5,000 rows, one row after the other.

For swaps, batches are scored without a break while another thread promotes one of two versions {swaps} times:
loading, warming, and one assignment. The pause is what a batch that met a swap took longer than the middle one.
Every batch must have one version whole, and every entity of it one score."""
_WHY_STAGE = (
    "The record that explains a score costs more than the score: a name for each value, two hashes, reasons. "
    "The session itself takes {session:.1f} of the stage's {stage:.1f} µs a row."
)
_WHY_PAUSE = "Loading and warming take the interpreter's lock and the processor from the batch that runs."


def measure(short: bool = False, repeats: str = "") -> Outcome:
    """Measure in the training environment, which has the peers."""
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
    rates = found["rates"]
    share = [100 * stage / raw for stage, raw in zip(rates["stage"], rates["session"], strict=True)]
    why = _WHY_STAGE.format(session=1e6 / middle(rates["session"]), stage=1e6 / middle(rates["stage"]))
    claims = [
        Claim(
            "entities scored a second by the stage, one thread", middle(rates["stage"]), "/s", 50_000,
            spread=(min(rates["stage"]), max(rates["stage"])), why=why,
        ),
        Claim(
            "the stage's rate as a share of the raw session's", middle(share), "%", 70,
            spread=(middle([min(share)]), middle([max(share)])), why=why,
        ),
        *_beside(rates),
        Claim("longest pause of a swap", found["swap"]["pause_ms"], "ms", 50, at_most=True, why=_WHY_PAUSE),
        Claim("entities unscored or scored twice by swaps", found["swap"]["wrong"], "", 0, at_most=True),
    ]  # fmt: skip
    table = [
        {"way": way, "rows a second": f"{middle(each):,.0f}", "lowest": f"{min(each):,.0f}"}
        for way, each in rates.items()
    ]
    return Outcome(_HOW.format(**found["how"]), claims, table, found)


def _beside(rates: dict[str, list[float]]) -> list[Claim]:
    claims = []
    for way, words in (("pyfunc", "MLflow's pyfunc predict"), ("river", "River's predict_one")):
        times, spread = ratio(rates["stage"], rates[way])
        why = "It gives bare numbers; the stage gives records that explain themselves."
        claims.append(Claim(f"the stage beside {words}", times, "×", 1.0, spread=spread, why=why))
    return claims
