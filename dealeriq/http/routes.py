"""Every address of the service, once: dispatch, OpenAPI and the page at `/` are made from this table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["ROUTES", "Route"]


@dataclass(frozen=True)
class Route:
    """One method of one address; `handler` names the method of `Handlers` that answers."""

    name: str
    method: str
    path: str
    handler: str
    summary: str
    problems: tuple[str, ...] = ()
    query: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    answer: str = "object"
    guarded: bool = False
    keeps_raw: bool = False
    segments: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "segments", tuple(self.path.split("/")[1:]))


AT = "event-time clock that windows end at: ms since epoch, or ISO 8601 with offset; default: now"
DETAIL = (
    "`true` adds the status of each feature (PRESENT, EMPTY, STALE, UNKNOWN) and the event time of each view"
)
SINCE = "cursor of the last insight seen: what came after it; -1: all that are kept"
READ = ("malformed-request", "unauthorized", "unknown-service", "wrong-entity", "store-unavailable")

MANY_BODY: Mapping[str, Any] = {
    "type": "object",
    "required": ["entities"],
    "additionalProperties": False,
    "properties": {
        "service": {
            "type": "string",
            "description": "a feature service or view; one of service, views, features",
        },
        "views": {"type": "array", "items": {"type": "string"}, "description": "all features of these views"},
        "features": {"type": "array", "items": {"type": "string"}, "description": "`view:feature` references"},
        "entities": {"type": "array", "items": {"type": "object"}, "description": "each a mapping of its keys"},
        "at": {"type": ["string", "integer"], "description": AT},
        "detail": {"type": "boolean", "description": DETAIL},
    },
}

SEARCH = ("malformed-request", "unauthorized", "bad-search", "not-searchable", "search-unavailable")
SEARCH_BODY: Mapping[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "text": {"type": "string", "maxLength": 2000, "description": "what to search for"},
        "like": {
            "type": "string",
            "description": "find the like of this: product/ID, document/ID or dealer/ID",
        },
        "image": {"type": "string", "description": "a still picture's file in base64: what looks like it"},
        "kinds": {
            "type": "array",
            "items": {"type": "string"},
            "description": "kinds of vectors to search with; default: all that there are of what is asked",
        },
        "dealer_id": {"type": "string", "description": "on whose behalf: its own documents are found too"},
        "filters": {
            "type": "object",
            "description": 'field -> a value, a list of values, or bounds of a number: {"gte": 1, "lte": 5}',
        },
        "limit": {"type": "integer", "minimum": 1, "maximum": 100, "default": 10},
        "correct": {"type": "boolean", "default": True, "description": "whether misspelt words are mended"},
    },
}

GRAPH = ("malformed-request", "unauthorized", "not-in-graph", "graph-unavailable")
MOST_ASKED = {"limit": "most answers, 1 to 100; default: 10"}

ROUTES: tuple[Route, ...] = (
    Route("page", "GET", "/", "page", "The addresses, for people", answer="text/html"),
    Route(
        "features",
        "GET",
        "/v1/features/{service}/{entity}",
        "features",
        "Features of one entity; several keys stand comma-separated, in the order of /v1/plan",
        READ,
        {"at": AT, "detail": DETAIL},
        answer="FeatureRow",
        guarded=True,
        keeps_raw=True,
    ),
    Route(
        "features_by_query",
        "GET",
        "/v1/features/{service}",
        "features_by_query",
        "Features of one entity whose keys are query parameters",
        READ,
        {"at": AT, "detail": DETAIL},
        answer="FeatureRow",
        guarded=True,
    ),
    Route(
        "features_many",
        "POST",
        "/v1/features",
        "features_many",
        "Features of many entities",
        (*READ, "too-large", "unknown-feature"),
        body=MANY_BODY,
        answer="FeatureRows",
        guarded=True,
    ),
    Route(
        "dealer",
        "GET",
        "/v1/dealers/{dealer_id}/features",
        "dealer",
        "Features of one dealer: the feature service `dealer`",
        READ,
        {"at": AT, "detail": DETAIL},
        answer="FeatureRow",
        guarded=True,
    ),
    Route(
        "search",
        "GET",
        "/v1/search",
        "search",
        "Products and documents by text or likeness; parameters of other names are filters: category=PRODUCE",
        SEARCH,
        {
            "q": "what to search for",
            "like": "find the like of this: product/ID, document/ID or dealer/ID",
            "kinds": "kinds of vectors to search with, comma-separated",
            "dealer_id": "on whose behalf: its own documents are found too",
            "limit": "most hits, 1 to 100; default: 10",
            "correct": "`false` takes misspelt words as they are",
        },
        answer="SearchAnswer",
        guarded=True,
    ),
    Route(
        "search_body",
        "POST",
        "/v1/search",
        "search_body",
        "Products and documents by text or likeness",
        (*SEARCH, "too-large"),
        body=SEARCH_BODY,
        answer="SearchAnswer",
        guarded=True,
    ),
    Route(
        "insights",
        "GET",
        "/v1/dealers/{dealer_id}/insights",
        "insights",
        "Insights of one dealer: the newest first, or the oldest first after `since`",
        ("malformed-request", "unauthorized", "store-unavailable"),
        {"since": SINCE, "before": "cursor: only insights before it", "limit": "most insights, 1 to 1000; 50"},
        answer="InsightPage",
        guarded=True,
    ),
    Route(
        "insights_stream",
        "GET",
        "/v1/dealers/{dealer_id}/insights/stream",
        "insights_stream",
        "Insights of one dealer as they come, as server-sent events; Last-Event-ID resumes after the last seen",
        ("malformed-request", "unauthorized", "store-unavailable"),
        {"since": SINCE},
        answer="text/event-stream",
        guarded=True,
    ),
    Route(
        "prices",
        "GET",
        "/v1/dealers/{dealer_id}/prices",
        "prices",
        "Price elasticities of what a dealer sells, and the change that earns most, with 95 % intervals",
        ("malformed-request", "unauthorized", "store-unavailable"),
        {
            "margin": "gross margin at the usual price, a share: earn profit, not revenue",
            "most": "largest change to advise, a share; default: 0.2",
        },
        answer="Prices",
        guarded=True,
    ),
    Route(
        "recommendations",
        "GET",
        "/v1/recommendations/{dealer_id}",
        "recommendations",
        "Products that a dealer does not have yet, the best first, each with why",
        ("malformed-request", "unauthorized", "store-unavailable"),
        {"limit": "most products, 1 to 100; default: 20", "category": "only products of this category"},
        answer="Recommendations",
        guarded=True,
    ),
    Route(
        "bought_together",
        "GET",
        "/v1/products/{product_id}/bought-together",
        "bought_together",
        "Products that one order holds with this one more often than chance says, the surest first",
        GRAPH,
        MOST_ASKED,
        answer="BoughtTogether",
        guarded=True,
    ),
    Route(
        "compatible",
        "GET",
        "/v1/products/{product_id}/compatible",
        "compatible",
        "Products of the same class, those first that most of its own dealers order, too",
        GRAPH,
        MOST_ASKED,
        answer="Compatible",
        guarded=True,
    ),
    Route(
        "similar_dealers",
        "GET",
        "/v1/dealers/{dealer_id}/similar",
        "similar_dealers",
        "Dealers that order the same products",
        GRAPH,
        MOST_ASKED,
        answer="SimilarDealers",
        guarded=True,
    ),
    Route(
        "plan",
        "GET",
        "/v1/plan",
        "plan",
        "Feature services and views",
        ("unauthorized",),
        answer="Plan",
        guarded=True,
    ),
    Route("healthz", "GET", "/healthz", "healthz", "The process is alive"),
    Route(
        "readyz",
        "GET",
        "/readyz",
        "readyz",
        "Ready to answer: store, plan, positions; 503 where not",
        answer="Health",
    ),
    Route("openapi", "GET", "/openapi.json", "openapi", "This description, OpenAPI 3.1"),
    Route("metrics", "GET", "/metrics", "metrics", "Prometheus metrics", answer="text/plain"),
    Route("problem", "GET", "/problems/{slug}", "problem", "What a kind of problem means", ("not-found",)),
)
