"""The demo as it is run by hand: it plays, verifies itself, and tells what it did."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.services, pytest.mark.fault, pytest.mark.timeout(600)]


def demo(folder: Path, orders: int) -> dict[str, Any]:
    given = {name: value for name, value in os.environ.items() if not name.startswith("DEALERIQ_")}
    command = [sys.executable, "-m", "dealeriq", "demo", "--orders", str(orders), "--speed", "max"]
    done = subprocess.run(
        [*command, "--exit", "--json"], env=given | {"DEALERIQ_DATA_DIR": str(folder)},
        capture_output=True, text=True, timeout=550,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_a_bounded_run_verifies_itself_and_says_what_it_did(tmp_path: Path) -> None:
    told = demo(tmp_path / "data", 2_000)
    assert told["ok"]
    assert told["produced"]["orders"] == told["topics"]["orders"]["applied"] == 2_000
    assert told["verify"]["full"]
    assert told["verify"]["values"] > 0
    assert 0 < told["seconds"]["playing"] < told["seconds"]["to_rest"]
    assert told["rates"]["produced_per_s"] > told["rates"]["to_readable_per_s"] > 0
    assert told["freshness"]["p50_s"] > 0
    assert told["memory_mb"]["together"] > 0
