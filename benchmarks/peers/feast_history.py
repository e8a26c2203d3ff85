"""Feast's own historical join: `python -m benchmarks.peers.feast_history FOLDER COLUMNS`, in its environment.

Answers each {"rows": n} with the seconds of joining values to the first n rows, and the peak memory so far.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from datetime import timedelta
from pathlib import Path

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Float64


def main(folder: Path, columns: int) -> None:
    """Apply one view of values and answer until the input ends."""
    store = FeatureStore(
        config=RepoConfig(
            project="peer",
            provider="local",
            registry=str(folder / "peer.db"),
            online_store={"type": "sqlite", "path": str(folder / "peer-online.db")},
            entity_key_serialization_version=3,
        )
    )
    dealer = Entity(name="dealer", join_keys=["dealer_id"], value_type=ValueType.STRING)
    source = FileSource(name="values", path=str(folder / "feast.parquet"), timestamp_field="event_timestamp")
    names = [f"v{i}" for i in range(columns)]
    view = FeatureView(
        name="orders",
        entities=[dealer],
        ttl=timedelta(days=90),
        schema=[Field(name=name, dtype=Float64) for name in names],
        source=source,
    )
    store.apply([dealer, source, view])
    rows = pd.read_parquet(folder / "rows.parquet", columns=["dealer_id", "event_timestamp"])
    for line in sys.stdin:
        some = rows.head(json.loads(line)["rows"])
        began = time.perf_counter()
        found = store.get_historical_features(some, [f"orders:{name}" for name in names]).to_df()
        seconds = time.perf_counter() - began
        # Feast joins rows that are the same once; every other row has an answer.
        assert len(found) == len(some.drop_duplicates()), (len(found), len(some))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds": seconds, "peak_mb": peak}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
