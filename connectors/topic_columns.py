"""Read many records of one topic as columns: those that a contract allows, and which were left out.

Records written with the topic's own schema are decoded a whole batch at a time; any other, and any in doubt,
goes through `schemas.codec` and `schemas.validate`, which know how schemas evolve and say what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from connectors.bounded import surely_allowed
from connectors.column_decoder import ColumnDecoder
from schemas.catalogue import topic
from schemas.codec import Decoder, plain
from schemas.errors import ContractError, UndecodableError
from schemas.validate import valid

__all__ = ["TopicBatch", "TopicColumns"]

_FRAME = 5  # bytes before the record: 0 and the schema's id


@dataclass(frozen=True)
class TopicBatch:
    """Records of a batch: `table` holds those that can be read, row i of the message `rows[i]`.

    `refused` are the others' places, each with its reason; a tombstone (None) is one of them.
    """

    table: pl.DataFrame
    rows: NDArray[np.int64]
    refused: list[tuple[int, ContractError]]


class TopicColumns:
    """Reads `columns` of one topic of the catalogue.

    `fetch_schema` returns the schema of a registry id (`Registry.schema`); what it raises for a registry that
    is away passes through.
    """

    def __init__(self, name: str, columns: Sequence[str], fetch_schema: Callable[[int], Any]) -> None:
        schema = topic(name).schema
        assert schema is not None, name
        self.name, self.columns, self._schema, self._fetch = name, list(columns), schema, fetch_schema
        self._slow = Decoder.of_topic(name, fetch_schema)
        self._fast: ColumnDecoder | None = None
        self._columnar = ColumnDecoder.supports(schema)
        self._shape: dict[str, Any] | None = None
        if self._columnar:
            self._shape = dict(ColumnDecoder(schema, 0).decode([])[0].select(self.columns).schema)

    def read(self, values: Sequence[bytes | None]) -> TopicBatch:
        """Return the records of some messages' values, in their order but for those read one by one, which come
        last.
        """
        good = np.zeros(len(values), bool)
        parts: list[pl.DataFrame] = []
        if (fast := self._columnwise(values)) is not None:
            table, good = fast.decode([value or b"" for value in values])
            good &= surely_allowed(self.name, table)
            kept = table.select(self.columns)
            parts.append(kept if good.all() else kept.filter(good))
        rows = [np.flatnonzero(good)]
        records, places, refused = [], [], []
        for row in np.flatnonzero(~good).tolist():
            try:
                record = valid(self.name, self._slow.decode(values[row]))
            except ContractError as error:
                refused.append((row, error))
                continue
            records.append({name: record[name] for name in self.columns})
            places.append(row)
        if records or not parts:
            slow = pl.DataFrame(records, schema=self._shape or self.columns)
            if records:
                self._shape = dict(slow.schema)  # whatever comes later is read alike
            parts.append(slow)
            rows.append(np.array(places, np.int64))
        return TopicBatch(pl.concat(parts, how="vertical_relaxed"), np.concatenate(rows), refused)

    def _columnwise(self, values: Sequence[bytes | None]) -> ColumnDecoder | None:
        """Return the decoder of the schema that is in use now: the first record's, if it is the topic's own."""
        if self._fast is None and self._columnar:
            framed = next((each for each in values if each and len(each) >= _FRAME and each[0] == 0), None)
            if framed is not None:
                schema_id = int.from_bytes(framed[1:_FRAME], "big")
                try:
                    same = plain(self._fetch(schema_id)) == plain(self._schema)
                except UndecodableError:
                    same = False
                if same:
                    self._fast = ColumnDecoder(self._schema, schema_id)
        return self._fast
