"""What is run in the training environment finds there what it imports, and not only here, where all is."""

import subprocess
import sys
from pathlib import Path

import pytest

from dealeriq.training import interpreter

ROOT = Path(__file__).parents[2]
RUN_THERE = (
    "models.monitoring.watch",
    "models.training.compare",
    "models.training.mirror",
    "models.training.run",
    "benchmarks.peers.leads",
    "benchmarks.peers.order_model",
    "benchmarks.peers.scoring",
    "benchmarks.peers.stationary",
    "benchmarks.peers.training",
)


@pytest.mark.parametrize("module", RUN_THERE)
def test_it_holds_what_is_imported(module: str) -> None:
    python = interpreter()
    assert python != sys.executable
    done = subprocess.run(
        [python, "-c", f"import {module}"], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
