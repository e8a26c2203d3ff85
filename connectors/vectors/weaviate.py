"""A Weaviate server by address, behind the same contract: its REST and GraphQL interfaces, over HTTP.

Weaviate has no sparse vectors, so words are kept as a text of its own: each term's number, as often as ten
times its weight says. With BM25's parameters set so that its score is linear in that count (b = 0, k1 without
bound), what the server adds up is the sum of weights times inverse document frequency, as the contract has it,
in steps of a tenth. It counts every entry for that, also those without words. An entry's fields are kept whole
as one JSON text; those that searches filter on are properties beside it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx
import numpy as np

from connectors.vectors.about import About, said, uuid_of
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
from schemas.errors import DealerIQError

__all__ = ["WeaviateIndex", "WeaviateRefusedError", "connect", "drop"]

_STEPS = 10  # of a weight of 1
_LINEAR_K1 = 1e6
_SCALE = _LINEAR_K1 / _STEPS  # the server's score of a term is its rarity times count / (k1 + count)
_KEPT = {"dataType": ["text"], "indexFilterable": False, "indexSearchable": False}
_PATIENCE_S = 30.0
_TOGETHER = 200  # entries written in one request


class WeaviateRefusedError(DealerIQError):
    """The server does not take what it is asked."""

    remedy = "Look at what it says; versions from 1.32 on have what is needed."
    exit_code = 5


def connect(address: str, key: str | None = None) -> httpx.Client:
    """Return a client of the server at this base address, which shows it the key."""
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    return httpx.Client(base_url=address, headers=headers, timeout=_PATIENCE_S)


def drop(client: httpx.Client, name: str) -> None:
    """Remove a collection and what it says of itself; one that is not there is no error.

    Raises IndexUnavailableError, WeaviateRefusedError.
    """
    for each in (name, f"{name}About"):
        _ask(client, "DELETE", f"/v1/schema/{each}", absent=True)


class WeaviateIndex(VectorIndex):
    """Opens the collection `name`, or makes it.

    Args:
        client: a client whose base URL is the server's.
        name: the collection: a capital letter, then letters, digits and underscores. A second one, `nameAbout`,
            holds what the index says of itself.
        kinds, keywords, numbers: as for `EdgeIndex`.

    Raises WrongFormatError, IndexUnavailableError.
    """

    def __init__(
        self, client: httpx.Client, name: str, kinds: Kinds, keywords: Sequence[str], numbers: Sequence[str]
    ) -> None:
        self._client, self._name, self.kinds = client, name, dict(kinds)
        self._keywords, self._numbers = tuple(keywords), tuple(numbers)
        self._about = About(kinds)
        about = self._ask("GET", f"/v1/objects/{name}About/{About.id}", absent=True)
        if about is not None or self._ask("GET", f"/v1/schema/{name}", absent=True) is not None:
            kept = None if about is None else json.loads(about["properties"]["fields"])
            self._about.read(kept, f"{name} of {client.base_url}")
            return
        self._ask("POST", "/v1/schema", self._schema())
        properties = [{"name": "fields", **_KEPT}]
        self._ask(
            "POST", "/v1/schema", {"class": f"{name}About", "vectorizer": "none", "properties": properties}
        )
        self._write_about(fresh=True)

    def put(self, entries: Sequence[Entry]) -> None:
        """Store entries, each in place of the one of its id."""
        for start in range(0, len(entries), _TOGETHER):
            objects = [self._object(each) for each in entries[start : start + _TOGETHER]]
            for told in self._ask("POST", "/v1/batch/objects", {"objects": objects}):
                if problem := told.get("result", {}).get("errors"):
                    raise WeaviateRefusedError(f"the entry {told.get('id')}: {json.dumps(problem)[:300]}")

    def set_fields(self, changes: Mapping[EntryId, Fields]) -> None:
        """Set these fields of entries and leave the others."""
        for each, entry in self.get(list(changes)).items():
            fields = said(entry.fields | changes[each])
            body = {"class": self._name, "id": uuid_of(each), "properties": self._properties(each, fields)}
            self._ask("PATCH", f"/v1/objects/{self._name}/{uuid_of(each)}", body)

    def delete(self, ids: Sequence[EntryId]) -> None:
        """Remove entries."""
        for start in range(0, len(ids), _TOGETHER):
            chosen = {
                "path": ["key"],
                "operator": "ContainsAny",
                "valueTextArray": list(ids[start : start + _TOGETHER]),
            }
            self._ask("DELETE", "/v1/batch/objects", {"match": {"class": self._name, "where": chosen}})

    def get(self, ids: Sequence[EntryId], *, vectors: bool = False) -> dict[EntryId, Entry]:
        """Return the entries that are there, by id."""
        found: dict[EntryId, Entry] = {}
        for start in range(0, len(ids), _TOGETHER):
            some = ids[start : start + _TOGETHER]
            where = _operand("key", "ContainsAny", "valueText", list(some))
            rows = self._get(f"where: {where}, limit: {len(some)}", vectors=vectors)
            found |= {row["key"]: self._entry(row) for row in rows}
        return found

    def scan(
        self, conditions: Sequence[Condition] = (), *, vectors: bool = False, batch: int = 1_000
    ) -> Iterator[Entry]:
        """Yield every entry that meets all conditions."""
        last = ""
        while True:
            after = [_operand("key", "GreaterThan", "valueText", last)] if last else []
            where = self._where(conditions, after)
            rows = self._get(f'{where}sort: [{{path: ["key"], order: asc}}], limit: {batch}', vectors=vectors)
            yield from map(self._entry, rows)
            if len(rows) < batch:
                return
            last = rows[-1]["key"]

    def near(self, kind: str, vector: Vector, limit: int, conditions: Sequence[Condition] = ()) -> list[Found]:
        """Return the nearest entries by cosine."""
        near = f'nearVector: {{vector: {json.dumps(vector.tolist())}, targetVectors: ["{kind}"]}}'
        rows = self._get(f"{self._where(conditions)}{near}, limit: {limit}", additional="distance")
        return [_found(row, 1 - row["_additional"]["distance"]) for row in rows]

    def matching(self, query: Sparse, limit: int, conditions: Sequence[Condition] = ()) -> list[Found]:
        """Return the entries that share terms with the query, by BM25."""
        if not query.terms:
            return []
        asked = json.dumps(_words(query, 1))
        words = f'bm25: {{query: {asked}, properties: ["words"]}}'
        rows = self._get(f"{self._where(conditions)}{words}, limit: {limit}", additional="score")
        return [_found(row, float(row["_additional"]["score"]) * _SCALE) for row in rows]

    def count(self, conditions: Sequence[Condition] = ()) -> int:
        """Return how many entries meet all conditions."""
        where = self._where(conditions).removesuffix(", ")
        chosen = f"({where})" if where else ""
        answer = self._graphql(f"{{Aggregate {{{self._name}{chosen} {{meta {{count}}}}}}}}")
        return int(answer["Aggregate"][self._name][0]["meta"]["count"])

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

    def _schema(self) -> dict[str, Any]:
        def filtered(name: str, kind: str) -> dict[str, Any]:
            more = {"tokenization": "field", "indexSearchable": False} if kind.startswith("text") else {}
            return {"name": name, "dataType": [kind], "indexFilterable": True, **more}

        return {
            "class": self._name,
            "invertedIndexConfig": {"indexNullState": True, "bm25": {"b": 0, "k1": _LINEAR_K1}},
            "vectorConfig": {
                kind: {
                    "vectorizer": {"none": {}},
                    "vectorIndexType": "hnsw",
                    "vectorIndexConfig": {"distance": "cosine"},
                }
                for kind in self.kinds
            },
            "properties": [
                filtered("key", "text"),
                {"name": "fields", **_KEPT},
                {"name": "sparse", **_KEPT},
                {"name": "words", "dataType": ["text"], "tokenization": "whitespace", "indexFilterable": False},
                *(filtered(f"f_{name}", "text[]") for name in self._keywords),
                *(filtered(f"f_{name}", "number") for name in self._numbers),
            ],
        }

    def _object(self, entry: Entry) -> dict[str, Any]:
        properties = self._properties(entry.id, said(entry.fields))
        if entry.sparse is not None and entry.sparse.terms:
            properties["sparse"] = json.dumps([list(entry.sparse.terms), list(entry.sparse.weights)])
            properties["words"] = _words(entry.sparse, _STEPS)
        vectors = {kind: (each / np.linalg.norm(each)).tolist() for kind, each in entry.dense.items()}
        return {"class": self._name, "id": uuid_of(entry.id), "properties": properties, "vectors": vectors}

    def _properties(self, identity: EntryId, fields: Fields) -> dict[str, Any]:
        """The properties of an entry; a field that is filtered on and absent is null."""
        found: dict[str, Any] = {"key": identity, "fields": json.dumps(fields)}
        for name in self._keywords:
            value = fields.get(name)
            found[f"f_{name}"] = None if value is None else [str(each) for each in _list(value)]
        for name in self._numbers:
            value = fields.get(name)
            found[f"f_{name}"] = None if value is None else float(value)
        return found

    def _entry(self, row: dict[str, Any]) -> Entry:
        vectors = row.get("_additional", {}).get("vectors") or {}
        dense = {kind: np.asarray(each, dtype=np.float32) for kind, each in vectors.items() if each}
        sparse = Sparse(*json.loads(row["sparse"])) if row.get("sparse") else None
        return Entry(row["key"], json.loads(row["fields"]), dense, sparse)

    def _get(self, arguments: str, *, vectors: bool = False, additional: str = "") -> list[dict[str, Any]]:
        """Ask for entries; `additional` is of the hit."""
        more = f"vectors {{{' '.join(self.kinds)}}}" if vectors else additional
        wanted = f"key fields {'sparse ' if vectors else ''}" + (f"_additional {{{more}}}" if more else "")
        answer = self._graphql(f"{{Get {{{self._name}({arguments}) {{{wanted}}}}}}}")
        rows: list[dict[str, Any]] = answer["Get"][self._name]
        return rows

    def _graphql(self, query: str) -> dict[str, Any]:
        answer = self._ask("POST", "/v1/graphql", {"query": query})
        if answer.get("errors"):
            raise WeaviateRefusedError(f"{self._name}: {json.dumps(answer['errors'])[:500]}")
        found: dict[str, Any] = answer["data"]
        return found

    def _write_about(self, *, fresh: bool = False) -> None:
        name, properties = f"{self._name}About", {"fields": json.dumps(self._about.fields)}
        body = {"class": name, "id": About.id, "properties": properties}
        if fresh:
            self._ask("POST", "/v1/objects", body)
        else:
            self._ask("PUT", f"/v1/objects/{name}/{About.id}", body)

    def _ask(self, method: str, path: str, body: Any = None, *, absent: bool = False) -> Any:
        return _ask(self._client, method, path, body, absent=absent)

    def _where(self, conditions: Sequence[Condition], also: Sequence[str] = ()) -> str:
        operands = [*map(_condition, conditions), *also]
        if not operands:
            return ""
        return f"where: {operands[0] if len(operands) == 1 else _all(operands)}, "


def _ask(client: httpx.Client, method: str, path: str, body: Any = None, *, absent: bool = False) -> Any:
    """Answer of the server; None for what is not there, where that may be."""
    try:
        answer = client.request(method, path, json=body)
    except httpx.TransportError as error:
        raise IndexUnavailableError(f"the index at {client.base_url} does not answer: {error}") from error
    if answer.status_code >= 500:
        told = f"{answer.status_code}: {answer.text[:300]}"
        raise IndexUnavailableError(f"the index at {client.base_url} answers {told}")
    if absent and answer.status_code == 404:
        return None
    if answer.status_code >= 400:
        raise WeaviateRefusedError(f"{method} {path}: {answer.status_code}: {answer.text[:300]}")
    return answer.json() if answer.content else {}


def _found(row: dict[str, Any], score: float) -> Found:
    return Found(row["key"], score, json.loads(row["fields"]))


def _words(sparse: Sparse, steps: int) -> str:
    """The terms as words, each as often as its weight says."""
    return " ".join(
        f"t{term}" for term, weight in zip(sparse.terms, sparse.weights, strict=True)
        for _ in range(max(1, round(weight * steps)))
    )  # fmt: skip


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else [value]


def _operand(name: str, operator: str, kind: str, value: Any) -> str:
    return f'{{path: ["{name}"], operator: {operator}, {kind}: {json.dumps(value)}}}'


def _all(operands: Sequence[str], operator: str = "And") -> str:
    return f"{{operator: {operator}, operands: [{', '.join(operands)}]}}"


def _condition(condition: Condition) -> str:
    match condition:
        case AnyOf(name, values):
            return _operand(f"f_{name}", "ContainsAny", "valueText", [str(each) for each in values])
        case Between(name, low, high):
            bounds = [("GreaterThanEqual", low), ("LessThanEqual", high)]
            operands = [
                _operand(f"f_{name}", sign, "valueNumber", float(bound))
                for sign, bound in bounds
                if bound is not None
            ]
            return operands[0] if len(operands) == 1 else _all(operands)
        case OwnOrNone(name, value):
            absent = _operand(f"f_{name}", "IsNull", "valueBoolean", True)
            if value is None:
                return absent
            return _all([absent, _operand(f"f_{name}", "ContainsAny", "valueText", [value])], "Or")
