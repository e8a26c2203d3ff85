"""What benchmarks run in the training environment finds there what it imports."""

import subprocess
from pathlib import Path

import pytest

from dealeriq.training import interpreter

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("peer", ["leads", "order_model", "scoring", "stationary", "training"])
def test_it_holds_what_is_imported(peer: str) -> None:
    command = [interpreter(), "-c", f"import benchmarks.peers.{peer}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
