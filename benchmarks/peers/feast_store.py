"""Feast's side, run in the peers' environment: `python -m benchmarks.peers.feast_store COMMAND FOLDER`.

`prepare` applies two ways to have the same features in Feast: our stream view with its on-demand merge (the
tiles are in Redis already), and a plain view of the merged values, which Feast writes itself from rows on
stdin.
`sdk` and `write` answer one JSON line per line read from stdin, so that the other side says when to run.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.peers import VALUES, VIEW

__all__ = ["main"]


def main() -> None:
    """Run one command."""
    command, folder = sys.argv[1], Path(sys.argv[2])
    COMMANDS[command](folder)


def prepare(folder: Path) -> None:
    """Apply both definitions; write the merged values given on stdin through Feast."""
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, PushSource
    from feast.types import Float64, Int64
    from feast.value_type import ValueType

    from features.plan import load
    from features.repo import entities, now, views

    given = json.load(sys.stdin)
    plan = load().views[VIEW]
    dtypes = {"long": Int64, "double": Float64}
    dealer = Entity(name="dealer", join_keys=["dealer_id"], value_type=ValueType.STRING)
    batch = FileSource(name="values", path=str(folder / "values.parquet"), timestamp_field="event_time")
    values = FeatureView(
        name=VALUES,
        entities=[dealer],
        ttl=timedelta(days=36_500),
        schema=[Field(name=each.name, dtype=dtypes[each.dtype]) for each in plan.features],
        source=PushSource(name=PUSH, batch_source=batch),
    )
    (stream,) = [each for each in views.VIEWS if each.name == VIEW]
    store = FeatureStore(repo_path=str(folder))
    store.apply([entities.dealer, stream, now.NOW[VIEW], batch, values])
    if given["rows"]:
        store.write_to_online_store(VALUES, _frame(given["rows"]))


def sdk(folder: Path) -> None:
    """For each line `{"way", "now_ms", "dealers": [[…]], "seconds"}` read for so long; answer the times."""
    from feast import FeatureStore

    store = FeatureStore(repo_path=str(folder))
    for line in sys.stdin:
        order = json.loads(line)
        way, now_ms = order["way"], order["now_ms"]
        features = [f"{VALUES if way == 'values' else VIEW + '_now'}:{name}" for name in order["features"]]
        groups, seconds = order["dealers"], order["seconds"]
        times: list[float] = []
        until = time.perf_counter() + seconds
        at = 0
        while (began := time.perf_counter()) < until:
            rows: list[dict[str, Any]] = [
                {"dealer_id": one} | ({} if way == "values" else {"now_ms": now_ms})
                for one in groups[at % len(groups)]
            ]
            answer = store.get_online_features(features, rows, full_feature_names=way != "values").to_dict()
            times.append(time.perf_counter() - began)
            at += 1
        print(json.dumps({"times": times, "first": {k: v[0] for k, v in answer.items()}}), flush=True)


def write(folder: Path) -> None:
    """For each line `{"way", "rows", "times"}` write rows that way so many times; answer rows and seconds."""
    from feast import FeatureStore
    from feast.data_source import PushMode

    store = FeatureStore(repo_path=str(folder))
    view = store.get_feature_view(VALUES)
    moment = datetime.now(UTC)
    for line in sys.stdin:
        order = json.loads(line)
        frame = _frame(order["rows"])
        ones = [frame.iloc[[i]] for i in range(len(frame))] if order["way"] == "push" else []
        protos = _protos(view, order["rows"]) if order["way"] == "online_write_batch" else []
        provider = store._get_provider()
        written = 0
        began = time.perf_counter()
        while time.perf_counter() - began < order["seconds"]:
            # Feast leaves a row alone whose time is not later, in whole seconds, than what is stored.
            moment += timedelta(seconds=1)
            match order["way"]:
                case "write_to_online_store":
                    frame["event_time"] = moment
                    store.write_to_online_store(VALUES, frame)
                    written += len(frame)
                case "online_write_batch":
                    fresh = [(key, values, moment, moment) for key, values in protos]
                    provider.online_write_batch(store.config, view, fresh, None)
                    written += len(fresh)
                case "push":
                    one = ones[written % len(ones)].assign(event_time=moment)
                    store.push(PUSH, one, to=PushMode.ONLINE)
                    written += 1
        print(json.dumps({"rows": written, "seconds": time.perf_counter() - began}), flush=True)


PUSH = "dealer_values_push"
COMMANDS: dict[str, Callable[[Path], None]] = {"prepare": prepare, "sdk": sdk, "write": write}


def _frame(rows: list[dict[str, Any]]) -> Any:
    import pandas as pd

    frame = pd.DataFrame(rows)
    frame["event_time"] = pd.Timestamp(datetime.now(UTC))
    return frame


def _protos(view: Any, rows: list[dict[str, Any]]) -> list[Any]:
    """Rows as Feast's own stores take them: the work of `write_to_online_store` before the store is done."""
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    kinds = {each.name: str(each.dtype) for each in view.schema}
    made = []
    for row in rows:
        key = EntityKey(join_keys=["dealer_id"], entity_values=[Value(string_val=row["dealer_id"])])
        values = {
            name: Value() if value is None
            else Value(int64_val=int(value)) if kinds[name] == "Int64" else Value(double_val=value)
            for name, value in row.items() if name != "dealer_id"
        }  # fmt: skip
        made.append((key, values))
    return made


if __name__ == "__main__":
    main()
