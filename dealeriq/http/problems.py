"""Every error over HTTP is a problem document (RFC 9457): what came, what is allowed, what to do.

The kinds are declared once here; the OpenAPI document, the pages under `/problems/` and the client's errors
follow from them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from schemas.errors import DealerIQError

__all__ = ["KINDS", "Kind", "ProblemError", "nearest"]


@dataclass(frozen=True)
class Kind:
    """A class of problem; `slug` is the last part of its `type` address."""

    slug: str
    status: int
    title: str
    remedy: str


KINDS: Mapping[str, Kind] = {
    kind.slug: kind
    for kind in (
        Kind("malformed-request", 400, "The request cannot be read", "Compare the request with /openapi.json."),
        Kind(
            "unauthorized", 401, "A token is needed", "Send `Authorization: Bearer TOKEN` (setting http.token)."
        ),
        Kind(
            "not-found",
            404,
            "Nothing is at this address",
            "The addresses are listed at / and in /openapi.json.",
        ),
        Kind(
            "unknown-service",
            404,
            "No such feature service or view",
            "The services and views are listed at /v1/plan.",
        ),
        Kind(
            "method-not-allowed",
            405,
            "This address does not take this method",
            "Use a method of the Allow header.",
        ),
        Kind("too-large", 413, "The request is too large", "Split the request into smaller ones."),
        Kind("unknown-feature", 422, "No such feature", "The features of each view are listed at /v1/plan."),
        Kind(
            "wrong-entity",
            422,
            "The entity does not fit",
            "Give exactly the keys that the view names at /v1/plan.",
        ),
        Kind("bad-search", 422, "The search cannot be made", "See docs/search.md for fields and limits."),
        Kind(
            "not-searchable",
            404,
            "Nothing of that name is in the index",
            "Search for it by text; a new product is in the index within seconds.",
        ),
        Kind(
            "internal",
            500,
            "Something is wrong in the service",
            "See the service's log at the time of the request.",
        ),
        Kind(
            "store-unavailable", 503, "The online store does not answer", "Try again after Retry-After seconds."
        ),
        Kind(
            "search-unavailable",
            503,
            "Search is not there",
            "Start it: `dealeriq demo --search`, or search.enabled = true; elsewhere set search.url.",
        ),
        Kind(
            "not-in-graph",
            404,
            "The graph holds nothing of that id",
            "Look at the id: what has a record or an order is in the graph within seconds.",
        ),
        Kind(
            "graph-unavailable",
            503,
            "The graph is not there",
            "Start it: `dealeriq demo --graph`, or graph.enabled = true; elsewhere set graph.url.",
        ),
    )
}


class ProblemError(DealerIQError):
    """An answer that is an error; raised anywhere in a handler and turned into a problem document."""

    remedy = "Each kind of problem has its own, at /problems/."

    def __init__(
        self,
        slug: str,
        detail: str,
        *,
        remedy: str | None = None,
        headers: Iterable[tuple[bytes, bytes]] = (),
        **extra: Any,
    ) -> None:
        self.kind = KINDS[slug]
        super().__init__(detail, remedy=remedy or self.kind.remedy)
        self.headers, self.extra = tuple(headers), extra

    def body(self, instance: str) -> bytes:
        """The problem document for the request path `instance`."""
        kind = self.kind
        return orjson.dumps(
            {
                "type": f"/problems/{kind.slug}",
                "title": kind.title,
                "status": kind.status,
                "detail": str(self),
                "instance": instance,
                "remedy": self.remedy,
                **self.extra,
            }
        )


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence that suggests the closest known names, or lists the first ones."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return f"Did you mean {' or '.join(close)}?"
    return (
        f"Known: {', '.join(names[:10])}{', ...' if len(names) > 10 else ''}." if names else "None are defined."
    )
