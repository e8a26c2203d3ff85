"""A sample of entities, drawn by hash: who is in it is known before anything is read, from the store and the
log alike.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Mapping
from itertools import compress

import numpy as np
import polars as pl
from numpy.typing import NDArray

from features.plan import Plan, ViewPlan
from schemas.catalogue import topic

__all__ = ["Lot", "lot_column"]

_WHOLE = 2**64
Entity = tuple[str, ...]


def lot_column(view: ViewPlan) -> str:
    """Return the column by which a view's entities are drawn: the key of its topic, so that views of one dealer
    go together.
    """
    key = topic(view.source_topic).key[0]
    return key if key in view.entity else view.entity[0]


class Lot:
    """Draws about `sample` values of each lot column; all of them where there are fewer.

    `there` are the entities that the store holds of each view: they say how many values there are.
    """

    def __init__(self, plan: Plan, there: Mapping[str, Collection[Entity]], sample: int) -> None:
        # Polars promises the same hashes within one process and seed, and a lot lives no longer.
        self._seed = secrets.randbits(63)
        values: dict[str, set[str]] = {}
        for view in plan.views.values():
            column = lot_column(view)
            at = view.entity.index(column)
            values.setdefault(column, set()).update(entity[at] for entity in there[view.name])
        self._below = {
            column: None if len(found) <= sample else int(_WHOLE * sample / len(found))
            for column, found in values.items()
        }

    def drawn(self, column: str, values: pl.Series) -> pl.Series:
        """Say of each value whether it is drawn; of a null, that it is not."""
        below = self._below[column]
        there = values.is_not_null()
        return there if below is None else there & (values.cast(pl.String).hash(self._seed) < below)

    def rows(self, table: pl.DataFrame, columns: Iterable[str]) -> NDArray[np.bool_]:
        """Say which rows have a drawn value in any of these columns."""
        drawn = pl.repeat(False, len(table), eager=True)
        for column in columns:
            drawn |= self.drawn(column, table[column])
        return drawn.to_numpy()

    def chosen(self, view: ViewPlan, entities: Collection[Entity]) -> list[Entity]:
        """Return the entities of a view that are drawn, each once."""
        column = lot_column(view)
        at = view.entity.index(column)
        drawn = self.drawn(column, pl.Series([entity[at] for entity in entities], dtype=pl.String))
        return sorted(set(compress(entities, drawn)))
