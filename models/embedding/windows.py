"""Vectors out of the lake: of each owner one in each window of event time, and pairs of two encoders."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from connectors.duck import connect_duckdb
from connectors.lake import Lake
from connectors.lake.reading import relation
from models.embedding.shift import Floats, Sample

__all__ = ["Series", "VectorHistory"]

_COLUMNS = (
    "chunk_id", "subject_type", "subject_id", "kind", "encoder", "dimension", "vector", "event_time",
    "_partition", "_offset",
)  # fmt: skip


@dataclass(frozen=True)
class Series:
    """One kind of vectors of one encoder: how many owners each window has, by its begin (ms), oldest first.

    `first_ms` is the event time of its first vector.
    """

    kind: str
    encoder: str
    first_ms: int
    owners: dict[int, int]


class VectorHistory:
    """The vectors that the lake has, in windows of `window_ms`. A context manager. Raises LakeError."""

    def __init__(self, lake: Lake, topics: Iterable[str], window_ms: int, memory_mb: int = 256) -> None:
        self._window = window_ms
        self._connection = connect_duckdb(memory_limit=f"{memory_mb}MB", threads=1)
        parts = []
        for number, name in enumerate(topics):
            relation(self._connection, lake, name, select=_COLUMNS).create_view(f"part{number}")
            parts.append(f"SELECT *, {number} AS part FROM part{number} WHERE vector IS NOT NULL")
        self._connection.sql(" UNION ALL ".join(parts)).create_view("vectors")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def series(self, since_ms: int = 0) -> list[Series]:
        """Return every kind and encoder there is, with windows from `since_ms` on."""
        rows = self._connection.execute(
            f"SELECT kind, encoder, event_time // {self._window} * {self._window} AS begin, "
            "count(DISTINCT subject_type || '/' || subject_id), min(event_time) FROM vectors "
            "WHERE event_time >= ? GROUP BY ALL ORDER BY kind, encoder, begin",
            [since_ms],
        ).fetchall()
        found: dict[tuple[str, str], dict[int, int]] = {}
        first: dict[tuple[str, str], int] = {}
        for kind, encoder, begin, owners, first_ms in rows:
            found.setdefault((kind, encoder), {})[begin] = owners
            first.setdefault((kind, encoder), first_ms)
        return [Series(*name, first[name], owners) for name, owners in found.items()]

    def newest_ms(self) -> int:
        """Return the newest event time there is; 0 where there is none."""
        (found,) = self._connection.execute("SELECT coalesce(max(event_time), 0) FROM vectors").fetchall()
        return int(found[0])

    def sample(self, series: Series, windows: Sequence[int], most: int) -> Sample:
        """Return one vector of each owner: the mean of its chunks in the latest of these windows that has some.

        Of more than `most` owners those are taken whose names hash lowest, so the same ones in each window.
        """
        rows = self._connection.execute(
            f"WITH chosen AS (SELECT *, event_time // {self._window} * {self._window} AS begin, "
            "subject_type || '/' || subject_id AS owner FROM vectors WHERE kind = ? AND encoder = ?), "
            "inside AS (SELECT * FROM chosen WHERE list_contains(?, begin)), "
            "owners AS (SELECT owner, max(begin) AS begin FROM inside GROUP BY owner "
            "ORDER BY md5(owner) LIMIT ?) "
            "SELECT owner, begin, vector FROM inside JOIN owners USING (owner, begin) "
            "QUALIFY row_number() OVER (PARTITION BY owner, chunk_id, part "
            "ORDER BY _partition DESC, _offset DESC) = 1 ORDER BY owner",
            [series.kind, series.encoder, list(windows), most],
        ).fetchall()
        owners: dict[str, tuple[int, list[Any]]] = {}
        for owner, begin, vector in rows:
            owners.setdefault(owner, (begin, []))[1].append(np.frombuffer(vector, "<f4"))
        means = [_unit(np.mean(vectors, axis=0)) for _, vectors in owners.values()]
        width = len(means[0]) if means else 0
        return Sample(
            np.array(means, np.float32).reshape(len(means), width),
            list(owners),
            np.array([begin for begin, _ in owners.values()], np.int64),
        )

    def pairs(self, kind: str, one: str, other: str, most: int) -> tuple[Floats, Floats]:
        """Return the vectors of chunks that both encoders have encoded, those that hash lowest."""
        rows = self._connection.execute(
            "WITH newest AS (SELECT chunk_id, encoder, arg_max(vector, event_time) AS vector FROM vectors "
            "WHERE kind = ? GROUP BY ALL) SELECT a.vector, b.vector "
            "FROM newest a JOIN newest b USING (chunk_id) "
            "WHERE a.encoder = ? AND b.encoder = ? ORDER BY md5(chunk_id) LIMIT ?",
            [kind, one, other, most],
        ).fetchall()
        both = [np.array([np.frombuffer(row[at], "<f4") for row in rows], np.float32) for at in (0, 1)]
        return both[0], both[1]


def _unit(vector: Any) -> Any:
    return vector / max(float(np.linalg.norm(vector)), 1e-12)
