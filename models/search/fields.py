"""The fields of what is searched: what each owner's record gives, and what a search may filter on."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from xxhash import xxh3_128_hexdigest

from connectors.vectors import AnyOf, Between, Condition
from schemas.errors import DealerIQError

__all__ = [
    "CHUNK",
    "FIELDS",
    "GIVES",
    "IMAGE",
    "KEYWORDS",
    "NUMBERS",
    "TEXT",
    "SearchRequestError",
    "conditions",
    "entries_of",
    "fields_of",
]

CHUNK = "chunk"
"""What an entry is that holds a chunk of a text. Those of other vectors are called as their kind, and what is
known of an owner is in one that is called nothing."""


TEXT = "text"
"""The kind of vectors that has many of an owner, one of each chunk; every other kind has one of an owner."""


IMAGE = "image"
"""The kind of vectors of pictures."""


def entries_of(kinds: Iterable[str]) -> list[str]:
    """What the entries with vectors of these kinds are."""
    return [CHUNK if kind == TEXT else kind for kind in kinds]


class SearchRequestError(DealerIQError):
    """A search asks for what it cannot have: an unknown field, a value of another kind, nothing at all.

    The remedy names what there is.
    """

    remedy = "See the fields and limits in docs/search.md."
    exit_code = 2


@dataclass(frozen=True, slots=True)
class Field:
    """One field to filter on."""

    name: str
    kind: Literal["keyword", "number"]
    meaning: str


FIELDS: Mapping[str, Field] = {
    each.name: each
    for each in (
        Field("type", "keyword", "product, document or dealer"),
        Field("category", "keyword", "department of a product"),
        Field("subcategory", "keyword", "category within the department"),
        Field("product_type", "keyword", "finest class of a product"),
        Field("brand", "keyword", "brand of a product"),
        Field("price", "number", "list price of a product"),
        Field("stock", "number", "units of a product on hand at all dealers together"),
        Field("stocked_by", "keyword", "a dealer that has the product on hand"),
        Field("document_kind", "keyword", "manual, policy, announcement and so on"),
        Field("product_id", "keyword", "the product itself, or the one that a document is about"),
    )
}

KEYWORDS = (
    *(each.name for each in FIELDS.values() if each.kind == "keyword"),
    "entry",
    "owner",
    "dealer_id",
    "live",
    "encoder",
)
NUMBERS = tuple(each.name for each in FIELDS.values() if each.kind == "number")

_GIVEN: Mapping[str, Mapping[str, str]] = {
    "product": {
        name: name
        for name in ("product_id", "name", "category", "subcategory", "product_type", "brand", "price")
    }
    | {"package_size": "package_size"},
    "document": {
        "title": "name",
        "kind": "document_kind",
        "product_id": "product_id",
        "dealer_id": "dealer_id",
    },
}


GIVES = xxh3_128_hexdigest(repr(_GIVEN).encode())
"""A hash of what `fields_of` takes: under another one, a record that says the same gives other fields."""


def fields_of(owner_type: str, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a record gives to every chunk of its owner; what it does not say is None."""
    return {ours: record.get(theirs) for theirs, ours in _GIVEN[owner_type].items()}


def conditions(filters: Mapping[str, Any]) -> list[Condition]:
    """Return the conditions of a search's filters: field -> a value, a list of values, or bounds of a number.

    >>> conditions({"category": "PRODUCE", "price": {"lte": 5}})
    [AnyOf(field='category', values=['PRODUCE']), Between(field='price', low=None, high=5.0)]

    Raises SearchRequestError.
    """
    found: list[Condition] = []
    for name, wanted in filters.items():
        declared = FIELDS.get(name)
        if declared is None:
            near = difflib.get_close_matches(name, FIELDS, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise SearchRequestError(
                f"no field is called {name!r}", remedy=f"{hint}there are {', '.join(FIELDS)}"
            )
        found.append(_number(name, wanted) if declared.kind == "number" else _keyword(name, wanted))
    return found


def _keyword(name: str, wanted: Any) -> Condition:
    values: Sequence[Any] = wanted if isinstance(wanted, list) else [wanted]
    if not values or not all(isinstance(each, str) and each for each in values) or len(values) > 100:
        raise SearchRequestError(
            f"{name} is {_short(wanted)}", remedy=f"Give {name} one text, or a list of 1 to 100 texts."
        )
    return AnyOf(name, list(values))


def _number(name: str, wanted: Any) -> Condition:
    bounds = wanted if isinstance(wanted, dict) else {"gte": wanted, "lte": wanted}
    numbers = {key: _float(each) for key, each in bounds.items()}
    if not bounds or not bounds.keys() <= {"gte", "lte"} or None in numbers.values():
        raise SearchRequestError(
            f"{name} is {_short(wanted)}", remedy=f'Give {name} a number, or bounds: {{"gte": 1, "lte": 5}}.'
        )
    return Between(name, numbers.get("gte"), numbers.get("lte"))


def _float(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if abs(number) < 1e300 and not isinstance(value, bool) else None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
