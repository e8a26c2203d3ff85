"""One whole system for the tests of this folder; they kill and corrupt it, and leave it right."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dealeriq.runtime import Supervisor
from dealeriq.settings import load
from dealeriq.system import SERVICES, System


@pytest.fixture(scope="session")
def system() -> Iterator[System]:
    """The running system, its clock that of the events. Tests share it: use dealers of your own."""
    folder = Path(tempfile.mkdtemp(prefix="dealeriq-system-"))
    try:
        # What is committed with a checkpoint is waited for many times here.
        often = {"DEALERIQ_FLINK__CHECKPOINT_INTERVAL_MS": "1000"}
        with Supervisor(load(os.environ | often), SERVICES, folder, prefer_default_ports=False) as supervisor:
            running = System(supervisor, clock="event")
            running.start()
            yield running
    finally:
        shutil.rmtree(folder, ignore_errors=True)
