"""A store of its own for a benchmark, filled with real tiles, and Feast's repository on it."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from benchmarks.peer import ROOT, interpreter
from benchmarks.peers import VIEW
from benchmarks.tiles import NOW_MS, dealer_tiles
from connectors.settings import RedisSettings
from dealeriq.runtime import Supervisor
from dealeriq.settings import Settings, load
from features.keys import clock_key
from features.merge import merge
from features.plan import ViewPlan
from features.plan import load as load_plan
from features.store import write_config
from features.tiles import Tile, encode
from features.writer import FeatureWriter

__all__ = ["Filled", "filled"]


@dataclass(frozen=True)
class Filled:
    """A store with the tiles of each dealer, and Feast's folder where it was asked for."""

    settings: Settings
    folder: Path
    view: ViewPlan
    tiles: dict[tuple[str, ...], list[Tile]]

    @property
    def dealers(self) -> list[str]:
        """Every dealer, in a fixed order."""
        return [dealer for (dealer,) in self.tiles]

    @property
    def names(self) -> list[str]:
        """Names of the view's features."""
        return [each.name for each in self.view.features]

    def values(self, now_ms: int = NOW_MS) -> list[dict[str, Any]]:
        """The merged values of every dealer, as rows for Feast's plain view."""
        return [
            {"dealer_id": dealer}
            | dict(zip(self.names, merge(self.view, encode(tiles, self.view), now_ms).values, strict=True))
            for (dealer,), tiles in self.tiles.items()
        ]


@contextmanager
def filled(dealers: int | None = None, feast: bool = True) -> Iterator[Filled]:
    """Start an empty store, never one that is set, fill it through our writer, and apply Feast to it."""
    settings = load()
    settings.redis = RedisSettings()
    plan = load_plan()
    view = plan.views[VIEW]
    with (
        tempfile.TemporaryDirectory(prefix="dealeriq-bench-") as name,
        Supervisor(settings, ("redis",), Path(name), prefer_default_ports=False) as running,
    ):
        folder = Path(name)
        it = Filled(running.settings, folder, view, dealer_tiles(view, dealers))
        client = redis.Redis.from_url(it.settings.redis.address)
        FeatureWriter(client, view, plan.project).write(it.tiles, {})
        client.set(clock_key(plan.project), NOW_MS)
        client.close()
        if feast:
            write_config(it.settings.redis, plan.project, folder)
            subprocess.run(
                [interpreter(), "-W", "ignore", "-m", "benchmarks.peers.feast_store", "prepare", str(folder)],
                input=json.dumps({"rows": it.values()}),
                text=True,
                check=True,
                cwd=ROOT,
            )
        yield it
