"""The circuit breaker against a plain retelling of what it promises."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from models.runtime.breaker import Breaker

STEPS = st.lists(st.tuples(st.sampled_from(["ok", "fail"]), st.floats(0, 4)), max_size=60)


@given(STEPS, st.integers(1, 4), st.floats(0.5, 5))
def test_calls_in_turn(steps: list[tuple[str, float]], failures: int, retry_s: float) -> None:
    now = 0.0
    breaker = Breaker(failures, retry_s, clock=lambda: now)
    in_a_row, opened = 0, None
    for outcome, passed in steps:
        now += passed
        expected = opened is None or now - opened >= retry_s
        assert breaker.allows() == expected
        if not expected:
            assert breaker.state == "open"
            continue
        assert breaker.state == ("closed" if opened is None else "half-open")
        if outcome == "ok":
            breaker.succeeded()
            in_a_row, opened = 0, None
        else:
            breaker.failed()
            in_a_row += 1
            if opened is not None or in_a_row >= failures:
                opened = now
        assert breaker.state == ("closed" if opened is None else "open")


def test_one_call_alone_finds_out() -> None:
    now = 0.0
    breaker = Breaker(1, 10.0, clock=lambda: now)
    assert breaker.allows()
    assert breaker.allows()  # another thread's, at the same time
    breaker.failed()
    now = 5.0
    breaker.failed()  # the other's comes late: the wait does not begin again
    now = 10.0
    allowed: list[bool] = []
    threads = [threading.Thread(target=lambda: allowed.append(breaker.allows())) for _ in range(16)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sum(allowed) == 1
    breaker.failed()
    now = 19.9
    assert not breaker.allows()
    now = 20.0
    assert breaker.allows()
    breaker.succeeded()
    assert breaker.allows()
    assert breaker.state == "closed"
