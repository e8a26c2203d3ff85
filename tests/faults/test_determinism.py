"""The same events into two empty systems, at another pace, give the same bytes."""

import time

import pytest

from benchmarks.determinism import differing, events, fill

pytestmark = [pytest.mark.services, pytest.mark.timeout(600)]


def test_the_same_events_give_the_same_bytes_whatever_the_pace() -> None:
    given, base_ms = events(4_000), time.time_ns() // 1_000_000
    assert len(given) == 4_200
    assert given["event_id"].n_unique() == 4_000
    assert not given["event_time"].is_sorted()
    first, again = fill(given, base_ms, chunks=0), fill(given, base_ms, chunks=8)
    assert len(first.online) > 1_000
    assert len(first.lake) == 4_200
    assert differing(first, again) == (0, 0, 0)
    key = next(iter(first.online))
    planted = type(first)({**first.online, key: {**first.online[key], b"x": b"1"}}, first.lake)
    assert differing(planted, again) == (1, 1, 0)
