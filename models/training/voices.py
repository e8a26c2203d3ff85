"""What people said of scores, as verdicts to learn from: one voice a source, and none that decides alone.

Feedback comes from anybody: twice, with two opinions, of what was never scored, or from one source that calls
everything wrong. So of each source its last word on a subject counts, sources that contradict each other are
heard by majority, and what one source alone says is believed of a small share of the rows at most.
"""

from __future__ import annotations

from collections.abc import Iterable

from xxhash import xxh3_64_intdigest

__all__ = ["verdicts"]

_ALONE = 100  # one row in so many may be decided by one source alone


def verdicts(said: Iterable[tuple[str, str, float]], subjects: Iterable[str]) -> dict[str, bool]:
    """Return, for subjects that were judged, whether they are wrong (a value below 0).

    Args:
        said: (subject, source, value) in the order of the stream.
        subjects: those that can be learnt from; what is said of others is passed over.

    A tie says nothing. Of subjects that one source alone has judged, at most one in a hundred of all subjects
    counts, chosen by hash: the same ones whenever the set is made.
    """
    known = set(subjects)
    voices: dict[str, dict[str, bool]] = {}
    for subject, source, value in said:
        if subject in known:
            voices.setdefault(subject, {})[source] = value < 0
    found: dict[str, bool] = {}
    alone: dict[str, list[str]] = {}
    for subject, each in voices.items():
        wrong = sum(each.values())
        if 2 * wrong == len(each):
            continue
        found[subject] = 2 * wrong > len(each)
        if len(each) == 1:
            alone.setdefault(next(iter(each)), []).append(subject)
    most = max(1, len(known) // _ALONE)
    for some in alone.values():
        for subject in sorted(some, key=lambda name: xxh3_64_intdigest(name.encode()))[most:]:
            del found[subject]
    return found
