"""Qdrant Edge: the index in this process, in a folder that one process owns.

Vectors are searched in 4 bits a number (TurboQuant) and the best four times over are compared again in full.
That takes three tenths of the time of comparing all in full, loses nothing to speak of, and needs no graph: the
shard's `optimize()`, which builds one, blocks every search for minutes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as qdrant

from connectors.vectors.about import SPARSE, About, said, uuid_of
from connectors.vectors.errors import IndexDamagedError, WrongFormatError
from connectors.vectors.index import (
    AnyOf,
    Between,
    Condition,
    Entry,
    EntryId,
    Fields,
    Found,
    Kinds,
    OwnOrNone,
    Position,
    Sparse,
    Vector,
    VectorIndex,
)

__all__ = ["EdgeIndex"]

_AGAIN = qdrant.SearchParams(quantization=qdrant.QuantizationSearchParams(rescore=True, oversampling=4.0))
_GOOD_PART = 0.25  # of the entries: where fewer meet the conditions, too few of the nearest are likely to
_MORE = 1.5  # times as many are looked at as are wanted
_NOT_ABOUT = (qdrant.Filter(must_not=[qdrant.HasIdCondition({About.id})]),)


class EdgeIndex(VectorIndex):
    """Opens the index in `folder`, or makes a new one there where it is empty or missing.

    Args:
        folder: the shard's own folder.
        kinds: the kinds of vectors that it holds, and whose they are; an index of others is refused.
        keywords, numbers: fields that searches filter on.

    Raises WrongFormatError, IndexDamagedError.
    """

    def __init__(self, folder: Path, kinds: Kinds, keywords: Sequence[str], numbers: Sequence[str]) -> None:
        self.folder, self.kinds = folder, dict(kinds)
        self._about = About(kinds)
        if (folder / "edge_config.json").exists():
            self._shard = _load(folder)
            found = self._shard.retrieve([About.id], True, False)
            try:
                self._about.read(found[0].payload if found else None, f"in {folder}")
            except WrongFormatError:
                self._shard.close()
                raise
        else:
            folder.mkdir(parents=True, exist_ok=True)
            self._shard = qdrant.EdgeShard.create(str(folder), _config(kinds))
            self._write_about()
        self._index_fields(keywords, qdrant.PayloadSchemaType.Keyword)
        self._index_fields(numbers, qdrant.PayloadSchemaType.Float)

    def put(self, entries: Sequence[Entry]) -> None:
        """Store entries, each in place of the one of its id."""
        if entries:
            self._shard.update(qdrant.UpdateOperation.upsert_points([_point(each) for each in entries]))

    def set_fields(self, changes: Mapping[EntryId, Fields]) -> None:
        """Set these fields of entries and leave the others."""
        known = self._shard.retrieve([uuid_of(each) for each in changes], False, False)
        there = {record.id.hex for record in known}
        for each, fields in changes.items():
            if each in there:
                self._shard.update(qdrant.UpdateOperation.set_payload([uuid_of(each)], fields))

    def delete(self, ids: Sequence[EntryId]) -> None:
        """Remove entries."""
        if ids:
            self._shard.update(qdrant.UpdateOperation.delete_points([uuid_of(each) for each in ids]))

    def get(self, ids: Sequence[EntryId], *, vectors: bool = False) -> dict[EntryId, Entry]:
        """Return the entries that are there, by id."""
        if not ids:
            return {}
        found = map(_entry, self._shard.retrieve([*map(uuid_of, ids)], True, vectors))
        return {each.id: each for each in found}

    def scan(
        self, conditions: Sequence[Condition] = (), *, vectors: bool = False, batch: int = 1_000
    ) -> Iterator[Entry]:
        """Yield every entry that meets all conditions."""
        chosen, offset = _filter(conditions, also=_NOT_ABOUT), None
        while True:
            request = qdrant.ScrollRequest(offset, batch, chosen, with_payload=True, with_vector=vectors)
            records, offset = self._shard.scroll(request)
            yield from map(_entry, records)
            if offset is None:
                return

    def near(self, kind: str, vector: Vector, limit: int, conditions: Sequence[Condition] = ()) -> list[Found]:
        """Return the nearest entries by cosine."""
        query = qdrant.Query.Nearest(vector.tolist(), kind)
        if conditions and self._mostly(conditions):
            found = self._nearest_of_all(query, limit, conditions)
            if found is not None:
                return found
        return self._query(query, limit, conditions)

    def matching(self, query: Sparse, limit: int, conditions: Sequence[Condition] = ()) -> list[Found]:
        """Return the entries that share terms with the query, by BM25."""
        if not query.terms:
            return []
        return self._query(qdrant.Query.Nearest(_sparse(query), SPARSE), limit, conditions)

    def count(self, conditions: Sequence[Condition] = ()) -> int:
        """Return how many entries meet all conditions."""
        return int(self._shard.count(qdrant.CountRequest(True, _filter(conditions, also=_NOT_ABOUT))))

    def positions(self) -> Position:
        """Return the position that the index holds."""
        return self._about.positions()

    def move(self, position: Position) -> None:
        """Store the next offsets of some partitions."""
        self._about.move(position)
        self._write_about()

    def close(self) -> None:
        """Write everything to its place, and let go of the folder."""
        self._shard.close()

    def _mostly(self, conditions: Sequence[Condition]) -> bool:
        """Whether a good part of the entries meets the conditions, by the index's own estimate."""
        estimate = self._shard.count(qdrant.CountRequest(False, _filter(conditions)))
        return bool(estimate > _GOOD_PART * self._shard.info().points_count)

    def _nearest_of_all(self, query: Any, limit: int, conditions: Sequence[Condition]) -> list[Found] | None:
        """Return the nearest that meet the conditions, from the nearest of all; None if too few are among them.

        For the index to look at the conditions of every vector takes twice as long as to compare them all.
        """
        some = int(limit * _MORE)
        near = self._query(query, some, ())
        found = [each for each in near if all(condition.met(each.fields) for condition in conditions)]
        return found[:limit] if len(found) >= limit or len(near) < some else None

    def _query(self, query: Any, limit: int, conditions: Sequence[Condition]) -> list[Found]:
        request = qdrant.QueryRequest(
            limit, query=query, filter=_filter(conditions), with_payload=True, params=_AGAIN
        )
        return [Found(each.id.hex, each.score, each.payload or {}) for each in self._shard.query(request)]

    def _write_about(self) -> None:
        point = qdrant.Point(About.id, {}, self._about.fields)
        self._shard.update(qdrant.UpdateOperation.upsert_points([point]))

    def _index_fields(self, names: Sequence[str], kind: Any) -> None:
        known = self._shard.info().payload_schema
        for name in names:
            if name not in known:
                self._shard.update(qdrant.UpdateOperation.create_field_index(name, kind))


def _config(kinds: Kinds) -> Any:
    bits = qdrant.TurboQuantQuantizationConfig(bits=qdrant.TurboQuantBitSize.Bits4, memory=qdrant.Memory.Pinned)
    return qdrant.EdgeConfig(
        vectors={
            name: qdrant.EdgeVectorParams(each.dimension, qdrant.Distance.Cosine, quantization_config=bits)
            for name, each in kinds.items()
        },
        sparse_vectors={SPARSE: qdrant.EdgeSparseVectorParams(modifier=qdrant.Modifier.Idf)},
    )


def _load(folder: Path) -> Any:
    try:
        return qdrant.EdgeShard.load(str(folder))
    except Exception as error:
        raise IndexDamagedError(f"the index in {folder} cannot be opened: {error}") from error


def _point(entry: Entry) -> Any:
    vectors: dict[str, Any] = {kind: vector.tolist() for kind, vector in entry.dense.items()}
    if entry.sparse is not None and entry.sparse.terms:
        vectors[SPARSE] = _sparse(entry.sparse)
    return qdrant.Point(uuid_of(entry.id), vectors, said(entry.fields))


def _entry(record: Any) -> Entry:
    identity, vectors = record.id.hex, record.vector
    if not vectors:
        return Entry(identity, record.payload or {})
    vectors = dict(vectors)
    sparse = vectors.pop(SPARSE, None)
    return Entry(
        identity,
        record.payload or {},
        {kind: np.asarray(each, dtype=np.float32) for kind, each in vectors.items()},
        None if sparse is None else Sparse(sparse.indices, sparse.values),
    )


def _sparse(sparse: Sparse) -> Any:
    return qdrant.SparseVector(list(sparse.terms), list(sparse.weights))


def _filter(conditions: Sequence[Condition], also: Sequence[Any] = ()) -> Any:
    must = [*map(_condition, conditions), *also]
    return qdrant.Filter(must=must) if must else None


def _condition(condition: Condition) -> Any:
    match condition:
        case AnyOf(name, values):
            if len(values) > 1:
                return qdrant.FieldCondition(name, match=qdrant.MatchAny(list(values)))  # type: ignore[arg-type]
            each: list[Any] = [qdrant.FieldCondition(name, match=qdrant.MatchValue(value)) for value in values]
            return each[0] if len(each) == 1 else qdrant.Filter(should=each)
        case Between(name, low, high):
            return qdrant.FieldCondition(name, range=qdrant.RangeFloat(gte=low, lte=high))
        case OwnOrNone(name, value):
            allowed: list[Any] = [qdrant.IsEmptyCondition(name)]
            if value is not None:
                allowed.append(qdrant.FieldCondition(name, match=qdrant.MatchValue(value)))
            return qdrant.Filter(should=allowed)
