"""What is generated is in step with the definitions; the plain Feast SDK reads what the reader reads."""

import asyncio
import random
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio

from connectors.lake import lake_of
from connectors.settings import RedisSettings
from dealeriq.settings import Settings
from features import compiler, store, view_compiler
from features.plan import PlanError, load
from features.reader import FeatureReader
from features.writer import FeatureWriter
from tests.features.folding import tiles_of

PLAN = load()
NOW = 1_700_000_000_000


def test_generated_files_are_in_step_with_the_definitions() -> None:
    stale = [
        path.name
        for path, text in compiler.artefacts(compiler.compile_repo()).items()
        if not path.exists() or path.read_text("utf-8") != text
    ]
    assert not stale, "run `dealeriq features apply`"


def test_no_tile_schema_is_left_over() -> None:
    wanted = {path for path in compiler.artefacts(PLAN) if path.suffix == ".avsc"}
    found = set((Path(compiler.__file__).parents[1] / "schemas" / "topics").glob("tiles.*.avsc"))
    assert found == wanted


@pytest.mark.parametrize(
    ("column", "function", "message"),
    [
        ("amount", "median", "no function is called 'median'; there are count, sum"),
        ("amuont", "sum", "no column 'amuont'; there are event_id"),
        ("customer_id", "sum", "needs a number that is never null"),
    ],
)
def test_a_definition_that_cannot_be_computed_is_refused(column: str, function: str, message: str) -> None:
    from feast.aggregation import Aggregation

    from features.repo.views import dealer_orders

    class Changed:
        def __getattr__(self, name: str) -> Any:
            return getattr(dealer_orders, name)

        aggregations = (Aggregation(column=column, function=function, time_window=timedelta(hours=1)),)

    with pytest.raises(PlanError, match=message):
        view_compiler.compile_view(Changed())


def test_feasts_address_carries_any_password() -> None:
    from feast.infra.online_stores.redis import RedisOnlineStore

    given = RedisSettings(url="rediss://h:7000/3", username="me", password='1,2="x"', ssl_ca_location="/a,b")  # type: ignore[arg-type]
    nodes, parameters = RedisOnlineStore._parse_connection_string(store.connection_string(given))
    assert nodes == [{"host": "h", "port": "7000"}]
    assert parameters == {
        "db": 3,
        "username": "me",
        "password": '1,2="x"',
        "ssl": True,
        "ssl_ca_certs": "/a,b",
    }


def test_the_feast_sdk_reads_what_the_reader_reads(stack: Settings, tmp_path: Path) -> None:
    chance = random.Random(7)
    client = redis.Redis.from_url(stack.redis.address)
    dealers = [f"feast-{i}" for i in range(4)]
    for name in PLAN.services["dealer"]:
        view = PLAN.views[name]
        updates = {(dealer,): tiles_of(view, _events(chance, 300)) for dealer in dealers}
        FeatureWriter(client, view, PLAN.project).write(updates, {})
    demand = PLAN.views["product_demand"]
    FeatureWriter(client, demand, PLAN.project).write({("feast-p",): tiles_of(demand, _events(chance, 90))}, {})

    config = store.write_config(stack.redis, PLAN.project, tmp_path, lake_of(tmp_path / "lake"))
    assert config.stat().st_mode & 0o077 == 0
    applied = store.apply(config)
    assert {"dealer_orders", "dealer_orders_now", "dealer"} <= set(applied)
    feast = store.open_store(config)

    for service, entities in (
        ("dealer", [{"dealer_id": each} for each in [*dealers, "feast-nobody"]]),
        ("product", [{"product_id": "feast-p"}]),
    ):
        for now in (NOW, NOW + 86_400_000 * 40, NOW - 86_400_000 * 3):
            answer = feast.get_online_features(
                features=feast.get_feature_service(service),
                entity_rows=[entity | {"now_ms": now} for entity in entities],
                full_feature_names=True,
            ).to_dict()
            rows = asyncio.run(_read(stack, service, entities, now))
            compared = 0
            for view_name in PLAN.services[service]:
                for i, feature in enumerate(PLAN.views[view_name].features):
                    want = [row[view_name].values[i] for row in rows]
                    assert answer[f"{view_name}_now__{feature.name}"] == want, feature.name
                    compared += sum(each is not None for each in want)
            assert compared > 5


async def _read(settings: Settings, service: str, entities: list[dict[str, str]], now: int) -> Any:
    connection = redis.asyncio.Redis.from_url(settings.redis.address)
    rows = await FeatureReader(connection, PLAN).read(service, entities, now)
    await connection.aclose()
    return rows


def _events(chance: random.Random, count: int) -> list[dict[str, Any]]:
    return [
        {
            "event_time": NOW - int(chance.random() ** 4 * 95 * 86_400_000),
            "amount": chance.random() * 100,
            "quantity": chance.randrange(9),
            "discount": chance.random(),
            "customer_id": chance.choice([None, "a", "b", "c"]),
            "product_id": str(chance.randrange(500)),
            "sentiment": chance.uniform(-1, 1),
            "urgency": chance.random(),
            "value": chance.uniform(-1, 1),
            "conversation_id": str(chance.randrange(40)),
            "intent": chance.choice(["order", "price"]),
        }
        for _ in range(count)
    ]
