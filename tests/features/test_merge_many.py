"""Many entities merged at once have the values that each has by itself, to the bit."""

import random
from dataclasses import replace

import numpy as np
import pytest

from features.merge import merge, reduced
from features.merge_many import merge_many
from features.plan import ViewPlan, load
from features.sketch import coupon
from features.tiles import Tile, Tiles, decode, double_fields, encode, sketch_fields

PLAN = load()
NOW = 1_700_000_000_000


def tiles_of(view: ViewPlan, rng: random.Random, count: int) -> Tiles:
    """Tiles of all grains with holes, some behind their parts, some never computed, some dated ahead."""
    found = {}
    for _ in range(count):
        grain = rng.choice(view.grains_ms)
        hop = (NOW - rng.randrange(-3 * view.hop_ms, 100 * 86_400_000)) // grain * grain
        n = rng.randrange(1, 9)
        doubles = tuple(
            float("nan") if rng.random() < 0.03 else float(hop + rng.randrange(grain))
            if name.endswith("_last_time") else rng.choice([-1, 1]) * rng.uniform(0, 10) ** rng.randrange(1, 9)
            for name in double_fields(view)
        )  # fmt: skip
        sketches = tuple(
            np.unique(np.array([coupon(str(rng.randrange(50))) for _ in range(n)], np.uint32)).tobytes()
            for _ in sketch_fields(view)
        )
        found[hop, grain] = Tile(grain // 1000, hop, n, doubles, sketches, hop + rng.randrange(grain), (1,))
    return decode(encode(found.values(), view))


@pytest.mark.parametrize("name", sorted(PLAN.views))
@pytest.mark.parametrize("some", [False, True])
def test_values_are_those_of_each_entity_alone(name: str, some: bool) -> None:
    view, rng = PLAN.views[name], random.Random(7)
    if some:
        names = [each.name for each in view.features]
        view = reduced(view, rng.sample(names, max(1, len(names) // 2)))
    whole = PLAN.views[name]
    tiles = [tiles_of(rng.choice([view, whole]), rng, rng.choice([0, 1, 3, 9, 60, 300])) for _ in range(60)]
    tiles[0] = replace(tiles_of(view, rng, 40), names=())  # as an early release wrote it
    times = np.array([NOW - rng.choice([0, 1, 10**6, 10**9, 10**10]) for _ in tiles])
    found = merge_many(view, tiles, times)
    for row, each, time_ms in zip(found, tiles, times.tolist(), strict=True):
        wanted = [np.nan if value is None else value for value in merge(view, each, time_ms).values]
        assert row.tobytes() == np.array(wanted, np.float64).tobytes()
    assert np.isnan(found).any()
    assert np.isfinite(found).any()


def test_of_nobody_there_is_nothing() -> None:
    view = PLAN.views["dealer_orders"]
    assert merge_many(view, [], np.empty(0, np.int64)).shape == (0, len(view.features))
