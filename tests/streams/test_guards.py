"""Guards beside owners' entries: whatever is merged or cut off, what was stored is there afterwards."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vector_world import KINDS, KilledError, Mortal

from connectors.vectors.edge import EdgeIndex
from models.search.fields import KEYWORDS, NUMBERS
from streams.views.guards import Guards


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    index = EdgeIndex(tmp_path_factory.mktemp("index") / "v", KINDS, KEYWORDS, NUMBERS)
    yield index
    index.close()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    puts=st.integers(1, 150),
    crashes=st.lists(st.integers(0, 60), max_size=4),
)
def test_what_was_stored_is_there_after_any_crash(opened, seed, puts, crashes):
    rng = random.Random(seed)
    opened.delete([each.id for each in opened.scan()])
    stored, tried, forgotten, crashes = {}, {}, {}, list(crashes)

    def begin():
        return Guards(Mortal(opened, crashes.pop() if crashes else None))

    guards = begin()
    for offset in range(puts):
        some = {f"product/{rng.randrange(20)}": (1_000 + offset, offset) for _ in range(rng.randrange(1, 5))}
        try:
            guards.put(some)
        except KilledError:
            tried |= some
            guards = begin()
        else:
            stored |= some
            if rng.random() < 0.1:
                owner = rng.choice(sorted(some))
                guards.forget([owner])
                forgotten[owner] = stored.pop(owner)
        if rng.random() < 0.1:
            guards = begin()
        for owner, guard in stored.items():
            assert guards.of(owner) in (guard, max(guard, tried.get(owner, guard), key=lambda each: each[1]))
    for owner, (_, offset) in forgotten.items():
        found = guards.of(owner)  # its entry says as much: what is left of it may be known, and nothing newer
        assert owner in stored or found is None or found[1] <= max(offset, tried.get(owner, (0, 0))[1])


def test_segments_stay_few_and_the_large_are_left_alone(opened):
    opened.delete([each.id for each in opened.scan()])
    guards = Guards(opened)
    guards.put({f"product/{number}": (1, number) for number in range(5_000)})
    (large,) = [each.id for each in opened.scan()]
    for number in range(500):
        guards.put({f"product/{number % 7}": (2, 10_000 + number)})
    found = {each.id: each for each in opened.scan()}
    assert len(found) <= 33
    assert large in found
    assert Guards(opened).of("product/3") == guards.of("product/3") == (2, 10_000 + 499 - 499 % 7 + 3 - 7)
    assert Guards(opened).of("product/4999") == (1, 4_999)
    assert len(guards) == len(Guards(opened)) == 5_000
