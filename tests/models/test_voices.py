"""Feedback as verdicts: said twice, contradicted, of nothing that is known, or by one source of everything."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from models.training.voices import verdicts

KNOWN = [f"line-{n}" for n in range(1_000)]


def test_the_last_word_of_a_source_counts_and_a_majority_of_sources() -> None:
    said = [
        ("line-1", "app", -1.0), ("line-1", "app", 1.0),
        ("line-2", "app", -1.0), ("line-2", "desk", -1.0), ("line-2", "bot", 1.0),
        ("line-3", "app", -1.0), ("line-3", "desk", 1.0),
    ]  # fmt: skip
    assert verdicts(said, KNOWN) == {"line-1": False, "line-2": True}  # of line-3 nothing is known


def test_what_is_said_of_an_unknown_subject_is_passed_over() -> None:
    said = [(f"never-scored-{n}", "app", -1.0) for n in range(500)]
    assert verdicts(said, KNOWN) == {}
    # Nor does it take anything away from what the same source says of others.
    assert verdicts([*said, ("line-5", "app", -1.0)], KNOWN) == {"line-5": True}


def test_one_source_alone_poisons_no_more_than_one_row_in_a_hundred() -> None:
    flood = [(each, "mallory", -1.0) for each in KNOWN] * 3
    assert len(verdicts(flood, KNOWN)) == 10
    honest = [(each, who, 1.0) for each in KNOWN[:200] for who in ("app", "desk")]
    found = verdicts([*flood, *honest], KNOWN)
    assert not any(found[each] for each in KNOWN[:200])  # who is contradicted by two is outvoted
    assert sum(found.values()) == 10
    assert verdicts(flood, KNOWN) == verdicts(flood[::-1], KNOWN)  # the same ones, however it came


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "x"]), st.sampled_from(["p", "q", "r"]), st.sampled_from([-1.0, 1.0])
        ),
        max_size=20,
    )
)
def test_verdicts_are_those_of_a_plain_count(said: list[tuple[str, str, float]]) -> None:
    known = ["a", "b", *map(str, range(500))]
    found = verdicts(said, known)
    for subject in ("a", "b", "x"):
        last = {source: value for name, source, value in said if name == subject}
        wrong = sum(value < 0 for value in last.values())
        if subject == "x" or 2 * wrong == len(last):
            assert subject not in found
        else:
            assert found[subject] is (2 * wrong > len(last))
