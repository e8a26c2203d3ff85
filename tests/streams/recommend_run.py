"""A recommend view on a store, what it recommends, and lines for it to fold."""

import random
import time

import numpy as np
from recommend_world import DAY_MS, NOW_MS, line, schema

from models.recommend.records import listed_of, product_key
from schemas.ids import event_id
from streams.recommend.rank import Ranking
from streams.recommend.store import RecommendStore
from streams.views.recommend_view import RecommendView


class World:
    """A view on a project of its own, and what it recommends."""

    def __init__(self, client):
        self.client, self.project = client, event_id("test", time.time_ns())
        self.start()

    def start(self):
        """A new process: nothing is known but what the store holds."""
        self.store = RecommendStore(self.client, self.project)
        self.view = RecommendView(self.store, schema)
        self.view.positions()

    def dump(self):
        return {key: self.client.dump(key) for key in self.client.scan_iter(f"{self.project}:*")}

    def item(self, product):
        items = self.store.items(np.array([product_key(product)], np.uint64))
        names = dict(items.data["near"][0].tolist())
        names.pop(0, None)
        return items.name(0), items.data[0], names

    def listed(self, name):
        at_s, entries = listed_of(self.store.lists([name])[name])
        return at_s, dict(entries.tolist())

    def recommend(self, who, limit=20, category=None, settings=None, ranker=None):
        steps = Ranking(self.project, settings).steps(who, limit, category, ranker)
        commands = next(steps)
        while True:
            pipeline = self.client.pipeline(transaction=False)
            for each in commands:
                pipeline.execute_command(*each)
            try:
                commands = steps.send(pipeline.execute())
            except StopIteration as done:
                return done.value


def history(seed, dealers=5, products=24, orders=150):
    """Orders of some weeks: some late, some lines twice, the same product twice in one order."""
    dice = random.Random(seed)
    lines = []
    for number in range(orders):
        who, at_ms = f"d{dice.randrange(dealers)}", NOW_MS + number * 6 * 3_600_000
        if dice.random() < 0.2:
            at_ms -= dice.randrange(20 * DAY_MS)
        some = dice.choices(range(products), k=dice.randrange(1, 8))
        new = [line(f"o{number}", i, who, f"p{each}", at_ms, f"c{each % 3}") for i, each in enumerate(some)]
        lines += new
        if dice.random() < 0.3:
            lines += dice.sample(new, 1)
    return lines
