"""The writer against a real Redis, read back by the reader."""

import asyncio

import redis
import redis.asyncio

from dealeriq.settings import Settings
from features.plan import load
from features.reader import FeatureReader
from features.writer import FeatureWriter
from tests.features.test_merge import NOW, fold

PLAN = load()
VIEW = PLAN.views["dealer_feedback"]


def test_repeats_and_reorders_change_nothing(stack: Settings) -> None:
    url = stack.redis.address
    client = redis.Redis.from_url(url)
    writer = FeatureWriter(client, VIEW, PLAN.project)
    old, new = fold([(NOW, 3)]), fold([(NOW, 3), (NOW + 1, 5)])
    for tiles, at in ((old, 1), (new, 2), (old, 1), (new, 2)):
        writer.write({("writer-test",): tiles}, {(VIEW.topic, 0): at})
    assert writer.positions()[VIEW.topic, 0] == 2
    assert FeatureWriter(client, VIEW, PLAN.project).positions() == writer.positions()

    async def read() -> list[object]:
        connection = redis.asyncio.Redis.from_url(url)
        names = [{"dealer_id": "writer-test"}, {"dealer_id": "nobody"}]
        rows = await FeatureReader(connection, PLAN).read(VIEW.name, names, NOW)
        await connection.aclose()
        return [row[VIEW.name].values[0] for row in rows]

    assert asyncio.run(read()) == [2, None]
