"""A sample of entities, drawn by hash: who is in it is known before anything is read, from the store and the
log alike.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping

import numpy as np
import polars as pl
import xxhash
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

    def __init__(self, plan: Plan, there: Mapping[str, Iterable[Entity]], sample: int) -> None:
        self._salt = secrets.token_bytes(8)
        self._known: dict[tuple[str, str], bool] = {}
        values: dict[str, set[str]] = {}
        for view in plan.views.values():
            column = lot_column(view)
            at = view.entity.index(column)
            values.setdefault(column, set()).update(entity[at] for entity in there[view.name])
        self._below = {
            column: _WHOLE if len(found) <= sample else int(_WHOLE * sample / len(found))
            for column, found in values.items()
        }

    def holds(self, column: str, value: str) -> bool:
        """Say whether a value is drawn."""
        known = self._known.get((column, value))
        if known is None:
            salted = self._salt + value.encode()
            known = self._known[column, value] = xxhash.xxh64_intdigest(salted) < self._below[column]
        return known

    def rows(self, table: pl.DataFrame, columns: Iterable[str]) -> NDArray[np.bool_]:
        """Say which rows have a drawn value in any of these columns."""
        drawn = pl.repeat(False, len(table), eager=True)
        for column in columns:
            values = table[column].drop_nulls().unique()
            held = values.filter([self.holds(column, str(value)) for value in values])
            drawn |= table[column].is_in(held.implode()).fill_null(False)
        return drawn.to_numpy()

    def chosen(self, view: ViewPlan, entities: Iterable[Entity]) -> list[Entity]:
        """Return the entities of a view that are drawn, each once."""
        column = lot_column(view)
        at = view.entity.index(column)
        return sorted({entity for entity in entities if self.holds(column, entity[at])})
