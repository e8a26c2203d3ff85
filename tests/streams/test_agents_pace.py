"""Parts of a batch: whole, in order, and about as long as wanted, whatever an event costs."""

import random

from streams.agents.pace import Pace


def run(pace, sizes, cost_s):
    """The parts of a batch, (first, end, seconds), where an event costs `cost_s(bytes)`."""
    found, start = [], 0
    while start < len(sizes):
        end = pace.end(sizes, start)
        seconds = 0.01 + sum(map(cost_s, sizes[start:end]))
        pace.took(sum(sizes[start:end]), seconds)
        found.append((start, end, seconds))
        start = end
    return found


def test_parts_hold_every_event_once_in_order_and_no_more_bytes_than_allowed():
    rng = random.Random(4)
    pace = Pace(10_000, 0.5)
    for _ in range(50):
        sizes = [rng.randrange(1, 12_000) for _ in range(rng.randrange(1, 60))]
        parts = run(pace, sizes, lambda size: size * rng.random() / 10_000)
        assert [each for first, end, _ in parts for each in range(first, end)] == list(range(len(sizes)))
        assert all(sum(sizes[a:b]) <= 10_000 or b - a == 1 for a, b, _ in parts)


def test_parts_come_to_the_time_that_is_wanted_and_grow_again_where_events_cost_nothing():
    pace, sizes = Pace(262_144, 0.5), [114] * 1_024
    first, *later = run(pace, sizes, lambda _: 0.005)
    assert first[:2] == (0, 1_024)  # nothing is known before the first
    assert later == []
    parts = run(pace, sizes, lambda _: 0.005)
    assert all(0.3 < seconds < 0.6 for _, _, seconds in parts[:-1])
    run(pace, sizes, lambda _: 0.000_02)
    assert len(run(pace, sizes, lambda _: 0.000_02)) == 1


def test_without_a_bound_a_batch_is_one_part():
    pace = Pace(None, None)
    assert run(pace, [10**9] * 5, lambda _: 60.0) == [(0, 5, 300.01)]
