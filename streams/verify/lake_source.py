"""A topic's records as the lake has them: the rows of a table up to its own positions.

A sample needs the events of some entities, and a topic gives them only whole, record by record. The lake gives
them in a fraction of the time. It is no second truth: what differs from its rows is compared with the topic
itself before it is a finding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import polars as pl

from connectors.duck import connect_duckdb
from connectors.lake import LakeTableMissingError, Root, positions, relation, version
from streams.verify.broker import Ends

__all__ = ["lake_rows"]

_BATCH = 200_000
_PLACE = ("_partition", "_offset", "_timestamp")


@contextmanager
def lake_rows(
    root: Root, topic: str, fields: Sequence[str], firsts: Ends
) -> Iterator[tuple[Iterator[pl.DataFrame], Ends]]:
    """Yield the rows of a topic's table, by parts, and the positions that they reach; none without a table.

    The parts have `fields`, the position, and `_readable`: whether the record has a value that could be read.
    Those that the topic has let go (before `firsts`) are left out. Raises what reading the lake raises.
    """
    try:
        at = version(root, topic)
        upto = positions(root, topic, at)
    except LakeTableMissingError:
        yield iter(()), {}
        return
    with connect_duckdb(threads=pl.thread_pool_size()) as sql:
        there = {partition: max(offset, firsts.get(partition, 0)) for partition, offset in upto.items()}
        rows = relation(sql, root, topic, version=at, positions=there)
        gone = " OR ".join(f"(_partition = {p} AND _offset < {first})" for p, first in firsts.items() if first)
        names = ", ".join(f'"{name}"' for name in (*fields, *_PLACE))
        readable = "NOT _tombstone AND _raw IS NULL AS _readable"
        reader = rows.filter(f"NOT ({gone or 'false'})").project(f"{names}, {readable}").to_arrow_reader(_BATCH)
        yield (pl.DataFrame(batch) for batch in reader), there
