"""What is known of prices now, in Redis for whoever advises elsewhere: JSON under `<project>:prices`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import NamedTuple

import orjson

from models.pricing import Response

__all__ = ["VIEW", "PriceBoard", "prices_key"]

VIEW = "dealer_category_orders"
"""Where a dealer's own sales of a group are."""


def prices_key(project: str) -> str:
    """Return the key of the board."""
    return f"{project}:prices"


class PriceBoard(NamedTuple):
    """The champion's version, None where there is none, and how each group answers to its price."""

    version: str | None
    groups: tuple[Response, ...]

    def dump(self) -> bytes:
        """Return it as JSON."""
        return orjson.dumps({"version": self.version, "groups": [asdict(each) for each in self.groups]})

    @classmethod
    def load(cls, text: bytes | None) -> PriceBoard:
        """Read what `dump` wrote; an empty board where nothing was written."""
        if text is None:
            return cls(None, ())
        given = orjson.loads(text)
        return cls(given["version"], tuple(Response(**each) for each in given["groups"]))

    @classmethod
    def of(cls, version: str, groups: Iterable[Response]) -> PriceBoard:
        """Return the board of a version."""
        return cls(version, tuple(groups))
