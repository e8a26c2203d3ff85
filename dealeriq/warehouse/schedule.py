"""The warehouse built again and again, as a process of the running system."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

from prometheus_client import Gauge

from connectors.lake.location import Lake, lake_at
from dealeriq.settings import Settings
from dealeriq.warehouse.build import build
from dealeriq.warehouse.settings import WarehouseSettings
from schemas.errors import DealerIQError
from streams.metrics import REGISTRY, StageMeters

__all__ = ["keep_built", "run"]

_BUILT_AT = Gauge(
    "dealeriq_warehouse_built_timestamp_seconds",
    "When the last build was swapped in, epoch s.",
    registry=REGISTRY,
)


def run(settings: Settings, stop: threading.Event) -> None:
    """Build the warehouse over the lake on its schedule, until `stop`."""
    keep_built(settings.warehouse, lake_at(settings.lake, settings.data_dir), settings.data_dir, stop)


def keep_built(settings: WarehouseSettings, lake: Lake, data_dir: Path, stop: threading.Event) -> None:
    """Build each `every_s` until told to stop. One that fails is told and counted, and the next one tried."""
    every_s = settings.every_s or 3_600.0
    meters = StageMeters("warehouse")
    while not stop.wait(every_s):
        try:
            report = build(lake, settings.path(data_dir), memory_mb=settings.memory_mb)
        except DealerIQError as error:
            meters.count("failed", 1)
            print(f"dealeriq warehouse: {error} {error.remedy}", file=sys.stderr, flush=True)
        else:
            meters.count("built", 1)
            _BUILT_AT.set(time.time())
            print(f"built {report.file} in {report.seconds:.1f} s", file=sys.stderr, flush=True)
