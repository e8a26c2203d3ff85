"""After a promotion everybody is scored by the new champion, whether or not anything changes for them.

Who there is, is what was scored before: the store remembers each subject. A sweep is over when every one of
them was given to the new champion; which decision was swept last is kept in the store, so that a scorer that
is killed in the middle begins again, and its scores have the same ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations

from streams.scoring.served import Served
from streams.scoring.store import ScoreStore

__all__ = ["Sweep", "entities_of"]

_AT_ONCE = 100  # a hundredth of a second or two
_JOIN = "/"


def entities_of(subject: str, keys: Sequence[str]) -> list[dict[str, str]]:
    """Return the entities that a subject's id may stand for: one, unless values hold a `/` themselves."""
    parts = subject.split(_JOIN)
    cuts = combinations(range(1, len(parts)), len(keys) - 1)
    return [
        {
            key: _JOIN.join(parts[begin:end])
            for key, begin, end in zip(keys, (0, *cut), (*cut, len(parts)), strict=True)
        }
        for cut in cuts
    ]


class Sweep:
    """What is still to be scored because a champion changed. Redis errors pass through."""

    def __init__(self, store: ScoreStore) -> None:
        self._store = store
        self._swept: dict[str, int] | None = None
        self._left: dict[str, tuple[int, Iterator[list[str]]]] = {}
        self._met: dict[str, tuple[int, set[str]]] = {}

    def begin(self, served: Mapping[str, Served]) -> None:
        """Note the champions of models of which nobody was scored yet: reading the tiles scores everybody."""
        for name, each in served.items():
            if not any(self._store.has_scored(peer) for peer in _peers(name, served)):
                self.done(name, each)

    def due(self, served: Mapping[str, Served]) -> Iterator[tuple[str, Served, list[str]]]:
        """Yield subjects that the champion of a model has still to score, some at a time."""
        for name, each in served.items():
            decided = each.champion.decided_at
            if self._known().get(name) == decided:
                continue
            held = self._left.get(name)
            if held is None or held[0] != decided:
                held = self._left[name] = decided, self._subjects(name, served)
            for some in held[1]:
                at, met = self._met.get(name, (decided, set()))
                if unmet := [subject for subject in some if at != decided or subject not in met]:
                    yield name, each, unmet
            self.done(name, each)

    @property
    def going(self) -> bool:
        """Whether a sweep was begun and is not over."""
        return bool(self._left)

    def met(self, name: str, served: Served, subjects: Iterable[str]) -> None:
        """Note who was scored by a champion anyway, because something changed: its sweep passes them over."""
        decided = served.champion.decided_at
        if self._known().get(name) != decided:
            if name not in self._met or self._met[name][0] != decided:
                self._met[name] = decided, set()
            self._met[name][1].update(subjects)

    def again(self, name: str) -> None:
        """What was taken could not be scored: the model's sweep begins anew."""
        self._left.pop(name, None)

    def done(self, name: str, served: Served) -> None:
        """Remember that a champion has scored everybody."""
        self._store.mark_swept(name, served.champion.decided_at)
        self._known()[name] = served.champion.decided_at
        self._left.pop(name, None)
        self._met.pop(name, None)

    def _known(self) -> dict[str, int]:
        if self._swept is None:
            self._swept = self._store.swept()
        return self._swept

    def _subjects(self, name: str, served: Mapping[str, Served]) -> Iterator[list[str]]:
        """Every subject that was scored of the model, or of another one about the same entities, once."""
        seen: set[str] = set()
        for peer in _peers(name, served):
            for some in self._store.subjects(peer, _AT_ONCE):
                fresh = [each for each in dict.fromkeys(some) if each not in seen]
                seen.update(fresh)
                if fresh:
                    yield fresh


def _peers(name: str, served: Mapping[str, Served]) -> list[str]:
    mine = served[name].champion.entity
    return [name, *(other for other, each in served.items() if other != name and each.champion.entity == mine)]
