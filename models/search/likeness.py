"""What is like a thing: near to each kind of vector that it has, a ranked list each.

Kinds have spaces of their own, so their cosines cannot be compared; the ranks in the lists are fused instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from connectors.vectors import AnyOf, Condition, Entry, Found, VectorIndex
from models.fusion import HYBRID
from models.search.fields import SearchRequestError, entries_of

__all__ = ["NothingLikeItError", "alike"]

_PREFIX = "like-"
"""Begins the name of each list; its kind ends it."""


class NothingLikeItError(SearchRequestError):
    """What the like of is asked for is not in the index, or not with a vector of the kinds that are wanted."""

    remedy = "Search for it by text first; a new product is in the index within seconds."


def alike(
    index: VectorIndex,
    name: str,
    kinds: Sequence[str],
    depth: int,
    wanted: Sequence[Condition],
    whole: bool = False,
) -> dict[str, list[Found]]:
    """Return a list for each of the kinds that the owner `name` has, named `like-KIND`; itself left out.

    `whole`: an owner that has a fused vector is compared by that alone, and not by its parts, too: what is near
    by all of it ranks better than ranks of each part fused (`benchmarks/fusion.py`).

    Of several vectors of a kind (the chunks of a text) their middle is searched with. Vectors of an encoder
    that makes versions of its own are compared with those of the same version alone.

    Raises NothingLikeItError.
    """
    own: dict[str, list[Entry]] = {}
    held = [AnyOf("entry", entries_of(kinds)), AnyOf("owner", [name])]
    for entry in index.scan(held, vectors=True):
        for kind in entry.dense:
            own.setdefault(kind, []).append(entry)
    if not own:
        raise NothingLikeItError(_absence(index, name, kinds))
    if whole and HYBRID in own:
        own = {HYBRID: own[HYBRID]}
    return {
        f"{_PREFIX}{kind}": _near(index, name, kind, own[kind], depth, wanted) for kind in kinds if kind in own
    }


def _near(
    index: VectorIndex, name: str, kind: str, own: Sequence[Entry], depth: int, wanted: Sequence[Condition]
) -> list[Found]:
    conditions = list(wanted)
    if not index.kinds[kind].versioned:
        newest = max(own, key=lambda each: int(each.fields["offset"])).fields["encoder"]
        own = [each for each in own if each.fields["encoder"] == newest]
        conditions.append(AnyOf("encoder", [newest]))
    middle = np.mean([each.dense[kind] for each in own], axis=0).astype(np.float32)
    near = index.near(kind, middle, depth + len(own), conditions)
    return [each for each in near if each.fields["owner"] != name]


def _absence(index: VectorIndex, name: str, kinds: Iterable[str]) -> str:
    others = [kind for kind in index.kinds if kind not in set(kinds)]
    has = [kind for kind in others if index.count([AnyOf("entry", entries_of([kind])), AnyOf("owner", [name])])]
    if has:
        return f"{name} has no vector of kind {', '.join(kinds)}, only of {', '.join(has)}"
    return f"nothing in the index is called {name}"
