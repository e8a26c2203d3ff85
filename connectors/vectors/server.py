"""A Qdrant server by address: the index of a cluster, behind the same contract as Edge's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar
from uuid import UUID

import numpy as np
from qdrant_client import QdrantClient
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse
from qdrant_client.http.models import (
    DeletePayload,
    DeletePayloadOperation,
    Distance,
    FieldCondition,
    Filter,
    HasIdCondition,
    IsEmptyCondition,
    MatchAny,
    MatchValue,
    Modifier,
    PayloadField,
    PayloadSchemaType,
    PointIdsList,
    PointStruct,
    Range,
    SetPayload,
    SetPayloadOperation,
    SparseVector,
    SparseVectorParams,
    VectorParams,
)

from connectors.vectors.about import SPARSE, About, said, uuid_of
from connectors.vectors.errors import IndexUnavailableError
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

__all__ = ["ServerIndex", "drop"]

_T = TypeVar("_T")


def drop(client: QdrantClient, name: str) -> None:
    """Remove a collection; one that is not there is no error. Raises IndexUnavailableError."""
    _asking(name, lambda: client.delete_collection(name))


class ServerIndex(VectorIndex):
    """Opens the collection `name`, or makes it.

    Args:
        client: a client of the server.
        name: the collection, or an alias of one.
        kinds, keywords, numbers: as for `EdgeIndex`.

    Raises WrongFormatError, IndexUnavailableError.
    """

    def __init__(
        self,
        client: QdrantClient,
        name: str,
        kinds: Kinds,
        keywords: Sequence[str],
        numbers: Sequence[str],
    ) -> None:
        self._client, self._name, self.kinds = client, name, dict(kinds)
        self._about = About(kinds)
        if self._asking(lambda: client.collection_exists(name)):
            found = self._asking(lambda: client.retrieve(name, [About.id], with_payload=True))
            self._about.read(found[0].payload if found else None, name)
        else:
            self._make(keywords, numbers)
            self._write_about()

    def put(self, entries: Sequence[Entry]) -> None:
        """Store entries, each in place of the one of its id."""
        if entries:
            points = [_point(each) for each in entries]
            self._asking(lambda: self._client.upsert(self._name, points, wait=True))

    def set_fields(self, changes: Mapping[EntryId, Fields]) -> None:
        """Set these fields of entries and leave the others."""
        operations: list[Any] = []
        for each in self.get(list(changes)):
            points: list[Any] = [uuid_of(each)]
            if payload := said(changes[each]):
                operations.append(SetPayloadOperation(set_payload=SetPayload(payload=payload, points=points)))
            if keys := [name for name, value in changes[each].items() if value is None]:
                gone = DeletePayload(keys=keys, points=points)
                operations.append(DeletePayloadOperation(delete_payload=gone))
        if operations:
            self._asking(lambda: self._client.batch_update_points(self._name, operations, wait=True))

    def delete(self, ids: Sequence[EntryId]) -> None:
        """Remove entries."""
        if ids:
            chosen = PointIdsList(points=[uuid_of(each) for each in ids])
            self._asking(lambda: self._client.delete(self._name, chosen, wait=True))

    def get(self, ids: Sequence[EntryId], *, vectors: bool = False) -> dict[EntryId, Entry]:
        """Return the entries that are there, by id."""
        if not ids:
            return {}
        wanted = [uuid_of(each) for each in ids]
        found = self._asking(
            lambda: self._client.retrieve(self._name, wanted, with_payload=True, with_vectors=vectors)
        )
        return {entry.id: entry for entry in map(_entry, found)}

    def scan(
        self, conditions: Sequence[Condition] = (), *, vectors: bool = False, batch: int = 1_000
    ) -> Iterator[Entry]:
        """Yield every entry that meets all conditions."""
        chosen, offset = _filter(conditions, about=False), None
        while True:
            records, offset = self._asking(
                lambda offset=offset: self._client.scroll(  # type: ignore[misc]
                    self._name, chosen, batch, offset=offset, with_payload=True, with_vectors=vectors
                )
            )
            yield from map(_entry, records)
            if offset is None:
                return

    def near(self, kind: str, vector: Vector, limit: int, conditions: Sequence[Condition] = ()) -> list[Found]:
        """Return the nearest entries by cosine."""
        return self._query(vector.tolist(), kind, limit, conditions)

    def matching(self, query: Sparse, limit: int, conditions: Sequence[Condition] = ()) -> list[Found]:
        """Return the entries that share terms with the query, by BM25."""
        if not query.terms:
            return []
        return self._query(_sparse(query), SPARSE, limit, conditions)

    def count(self, conditions: Sequence[Condition] = ()) -> int:
        """Return how many entries meet all conditions."""
        chosen = _filter(conditions, about=False)
        return self._asking(lambda: self._client.count(self._name, chosen, exact=True)).count

    def positions(self) -> Position:
        """Return the position that the index holds."""
        return self._about.positions()

    def move(self, position: Position) -> None:
        """Store the next offsets of some partitions."""
        self._about.move(position)
        self._write_about()

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()

    def _asking(self, ask: Callable[[], _T]) -> _T:
        return _asking(self._name, ask)

    def _make(self, keywords: Sequence[str], numbers: Sequence[str]) -> None:
        vectors = {
            name: VectorParams(size=each.dimension, distance=Distance.COSINE)
            for name, each in self.kinds.items()
        }
        sparse = {SPARSE: SparseVectorParams(modifier=Modifier.IDF)}
        self._asking(lambda: self._client.create_collection(self._name, vectors, sparse_vectors_config=sparse))
        kinds = {PayloadSchemaType.KEYWORD: keywords, PayloadSchemaType.FLOAT: numbers}
        for kind, names in kinds.items():
            for each in names:
                self._client.create_payload_index(self._name, each, kind, wait=True)

    def _query(self, query: Any, using: str, limit: int, conditions: Sequence[Condition]) -> list[Found]:
        chosen = _filter(conditions)
        found = self._asking(
            lambda: self._client.query_points(
                self._name, query, using=using, limit=limit, query_filter=chosen, with_payload=True
            )
        )
        return [Found(UUID(str(each.id)).hex, each.score, each.payload or {}) for each in found.points]

    def _write_about(self) -> None:
        point = PointStruct(id=About.id, vector={}, payload=self._about.fields)
        self._asking(lambda: self._client.upsert(self._name, [point], wait=True))


def _asking(name: str, ask: Callable[[], _T]) -> _T:
    try:
        return ask()
    except (ResponseHandlingException, ApiException) as error:
        if isinstance(error, UnexpectedResponse) and error.status_code is not None and error.status_code < 500:
            raise
        raise IndexUnavailableError(f"the index {name} does not answer: {error}") from error


def _point(entry: Entry) -> PointStruct:
    vectors: dict[str, Any] = {kind: vector.tolist() for kind, vector in entry.dense.items()}
    if entry.sparse is not None and entry.sparse.terms:
        vectors[SPARSE] = _sparse(entry.sparse)
    return PointStruct(id=uuid_of(entry.id), vector=vectors, payload=said(entry.fields))


def _entry(record: Any) -> Entry:
    vectors = dict(record.vector or {})
    sparse = vectors.pop(SPARSE, None)
    return Entry(
        UUID(str(record.id)).hex,
        record.payload or {},
        {kind: np.asarray(each, dtype=np.float32) for kind, each in vectors.items()},
        None if sparse is None else Sparse(sparse.indices, sparse.values),
    )


def _sparse(sparse: Sparse) -> SparseVector:
    return SparseVector(indices=list(sparse.terms), values=list(sparse.weights))


def _filter(conditions: Sequence[Condition], *, about: bool = True) -> Filter | None:
    must_not = [] if about else [HasIdCondition(has_id=[About.id])]
    if not conditions and not must_not:
        return None
    return Filter(must=[_condition(each) for each in conditions], must_not=must_not)


def _condition(condition: Condition) -> Any:
    match condition:
        case AnyOf(name, values):
            if len(values) > 1:
                return FieldCondition(key=name, match=MatchAny(any=list(values)))
            return Filter(should=[FieldCondition(key=name, match=MatchValue(value=each)) for each in values])
        case Between(name, low, high):
            return FieldCondition(key=name, range=Range(gte=low, lte=high))
        case OwnOrNone(name, value):
            allowed: list[Any] = [IsEmptyCondition(is_empty=PayloadField(key=name))]
            if value is not None:
                allowed.append(FieldCondition(key=name, match=MatchValue(value=value)))
            return Filter(should=allowed)
