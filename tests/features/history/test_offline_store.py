"""The plain Feast SDK over the lake: `get_historical_features` gives what the history gives."""

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from connectors.lake import lake_of
from connectors.settings import RedisSettings
from features import store
from features.history import EntityRowsError, History, UnknownFeatureError
from features.plan import load
from tests.features.history.oracle import DAY, HOUR, answers, same
from tests.features.history.test_history import START, year
from tests.lake_tables import write_events


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, list[dict[str, Any]], Path]:
    """A Feast store on a lake of order lines; its Redis is never asked for history."""
    folder = tmp_path_factory.mktemp("lake")
    events = year(400, seed=21)
    write_events(folder, "orders", events, time_ms=START + 20 * DAY)
    config = store.write_config(
        RedisSettings(url="redis://127.0.0.1:1"), load().project, folder / "feast", lake_of(folder)
    )
    store.apply(config)
    return store.open_store(config), events, folder


def entities() -> pd.DataFrame:
    times = [START + i * 5 * DAY + i * HOUR for i in range(14)]
    return pd.DataFrame(
        {
            "dealer_id": [f"D{i % 6}" for i in range(14)],
            "event_timestamp": pd.to_datetime(times, unit="ms", utc=True),
            "now_ms": times,
            "label": range(14),
        }
    )


def test_a_service_through_the_sdk_equals_the_oracle(lake: Any) -> None:
    feast, events, folder = lake
    asked = entities()
    found = feast.get_historical_features(
        asked, feast.get_feature_service("dealer"), full_feature_names=True
    ).to_df()
    assert found[list(asked.columns)].equals(asked)
    assert len(found.columns) == len(asked.columns) + sum(
        len(load().views[view].features) for view in load().services["dealer"]
    )
    for row in found.to_dict("records"):
        mine = [event for event in events if event["dealer_id"] == row["dealer_id"]]
        wanted = answers("dealer_orders", mine, row["now_ms"])
        for feature in load().views["dealer_orders"].features:
            value = row[f"dealer_orders_now__{feature.name}"]
            assert same(feature.function, None if pd.isna(value) else value, wanted[feature.name][0])
    with History(load(), ["dealer"], folder) as history:
        frame = history.of(pa.Table.from_pandas(asked))
    for name in ("count_24h", "amount_mean_90d", "customer_id_distinct_30d"):
        same_values = found[f"dealer_orders_now__{name}"].to_list()
        assert (
            pa.array(same_values, from_pandas=True)
            .cast(frame[f"dealer_orders__{name}"].type)
            .equals(frame[f"dealer_orders__{name}"].combine_chunks())
        )


def test_single_features_have_short_names_and_only_what_had_come_is_a_choice(lake: Any) -> None:
    feast, _, _ = lake
    names = ["dealer_orders_now:count_90d", "dealer_orders_now:amount_last_90d"]
    late = feast.get_historical_features(entities(), names).to_df()
    known = feast.get_historical_features(entities(), names, filter_by_created_timestamp=True).to_df()
    assert list(late.columns[-2:]) == ["count_90d", "amount_last_90d"]
    came = entities()["now_ms"] >= START + 20 * DAY
    assert known["count_90d"][~came].isna().all()
    assert known["count_90d"][came].equals(late["count_90d"][came])
    assert late["count_90d"][~came].sum() > 0


def test_what_history_cannot_give_is_said(lake: Any) -> None:
    feast, _, _ = lake
    name = ["dealer_orders_now:count_90d"]
    with pytest.raises(EntityRowsError, match="now_ms is not event_timestamp"):
        feast.get_historical_features(entities().assign(now_ms=START + 400 * DAY), name).to_df()
    with pytest.raises(UnknownFeatureError, match="values, not tiles"):
        feast.get_historical_features(entities(), ["dealer_orders:tiles"])
    with pytest.raises(EntityRowsError, match="not a query"):
        feast.get_historical_features("SELECT 1", name)
