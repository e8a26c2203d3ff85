"""The OpenAPI 3.1 document, made from the route table and the kinds of problems."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

from dealeriq.http.problems import KINDS
from dealeriq.http.routes import ROUTES, Route
from schemas.catalogue import topic

__all__ = ["document"]

_NUMBER_OR_TEXT = {"type": ["number", "string", "boolean", "null", "array"]}
API_VERSION = "1.0.0"  # of the addresses and answers, not of the package that serves them

_STATUS = {"type": "string", "enum": ["PRESENT", "EMPTY", "STALE", "UNKNOWN"]}


def _nested(values: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": {"type": "object", "additionalProperties": values}}


_ROW: dict[str, Any] = {
    "entity": {"type": "object", "additionalProperties": {"type": ["string", "integer"]}},
    "features": _nested(_NUMBER_OR_TEXT),
    "statuses": _nested(_STATUS),
    "event_times": {"type": "object", "additionalProperties": {"type": ["integer", "null"]}},
}
_AT = {"type": "integer", "description": "event-time clock of the answer, ms since epoch"}

_KINDS = {"string": "string", "double": "number", "float": "number", "long": "integer", "int": "integer"}


def _of_avro(avro: Any) -> dict[str, Any]:
    """JSON's schema of an Avro type, as its records are answered."""
    if isinstance(avro, list):
        found = _of_avro(next(each for each in avro if each != "null"))
        return {**found, "type": [found["type"], "null"]}
    if isinstance(avro, str):
        return {"type": _KINDS.get(avro, "boolean")}
    match avro["type"]:
        case "record":
            fields = {
                each["name"]: {**_of_avro(each["type"]), "description": each["doc"]} for each in avro["fields"]
            }
            return {"type": "object", "required": list(fields), "properties": fields}
        case "array":
            return {"type": "array", "items": _of_avro(avro["items"])}
        case "map":
            return {"type": "object", "additionalProperties": _of_avro(avro["values"])}
        case kind:
            return _of_avro(kind)


_INSIGHT = _of_avro(topic("insights").schema)
_INSIGHT["properties"]["cursor"] = {
    "type": "string",
    "description": "its place among the dealer's insights: give it as `since`, `before` or Last-Event-ID",
}

_NAME = {"type": ["string", "null"], "description": "none where no record has come yet"}


def _graph_answer(about: str, others: str, other: dict[str, Any], **more: Any) -> dict[str, Any]:
    """An answer about one product or dealer: others, the first the nearest, each with its own numbers."""
    known = {about: {"type": "string"}, "name": _NAME, **more}
    item = {"type": "object", "required": list(other), "properties": {**other, "name": _NAME}}
    return {
        "type": "object",
        "required": [*known, others],
        "properties": {**known, others: {"type": "array", "items": item}},
    }


def _count(meaning: str) -> dict[str, Any]:
    return {"type": "integer", "description": meaning}


_EFFECT = {
    "type": "object",
    "required": ["expected", "low", "high"],
    "properties": {name: {"type": "number"} for name in ("expected", "low", "high")},
    "description": "a relative change with its 95 % interval: 0.1 is ten per cent more",
}
_GROUP_PRICE: dict[str, Any] = {
    "group": {"type": "string"},
    "elasticity": {"type": "number", "description": "per cent of quantity for one per cent of price"},
    "low": {"type": "number", "description": "lower end of the elasticity's 95 % interval"},
    "high": {"type": "number", "description": "upper end of it"},
    "lowest": {"type": "number", "description": "price over the usual one: nine in ten were above"},
    "highest": {"type": "number", "description": "nine in ten were below"},
    "estimated": {"type": "boolean", "description": "false: its own prices hardly moved"},
    "change": {"type": "number", "description": "advised, relative to the usual price; 0 is to keep it"},
    "quantity": _EFFECT,
    "revenue": _EFFECT,
    "gain": _EFFECT,
    "why": {"type": "string", "description": "the reason in words"},
    "sold_30d": {
        "type": "object",
        "required": ["amount", "quantity"],
        "properties": {"amount": {"type": "number"}, "quantity": {"type": "number"}},
        "description": "what the dealer sold of the group in 30 days",
    },
}

SCHEMAS: dict[str, Any] = {
    "BoughtTogether": _graph_answer(
        "product_id",
        "products",
        {
            "product_id": {"type": "string"},
            "together": _count("orders that hold both"),
            "lines": _count("order lines of it"),
            "lift": {"type": "number", "description": "times more often than if the two were independent"},
            "score": {"type": "number", "description": "log-likelihood ratio, by which they are ranked"},
        },
        orders=_count("orders that hold the product: the newest, of one with many"),
        all_orders=_count("orders in the graph"),
    ),
    "Compatible": _graph_answer(
        "product_id",
        "products",
        {
            "product_id": {"type": "string"},
            "dealers": _count("of the product's dealers, how many order it, too"),
            "last_ms": _count("when one last did, event time, ms since epoch"),
        },
        dealers=_count("dealers that order the product"),
        **{"class": {"type": ["string", "null"], "description": "the class that all share"}},
    ),
    "SimilarDealers": _graph_answer(
        "dealer_id",
        "dealers",
        {
            "dealer_id": {"type": "string"},
            "shared": _count("products that both order"),
            "products": _count("products that it orders"),
            "score": {"type": "number", "description": "cosine of the two sets of products"},
        },
        products=_count("products of the dealer that were compared: those it orders most"),
    ),
    "FeatureRow": {
        "type": "object",
        "required": ["entity", "at", "features"],
        "properties": {**_ROW, "at": _AT},
    },
    "FeatureRows": {
        "type": "object",
        "required": ["at", "results"],
        "properties": {
            "at": _AT,
            "results": {
                "type": "array",
                "items": {"type": "object", "required": ["entity", "features"], "properties": _ROW},
            },
        },
    },
    "Plan": {
        "type": "object",
        "required": ["views", "services"],
        "properties": {
            "views": {"type": "array", "items": {"type": "object"}},
            "services": {
                "type": "object",
                "additionalProperties": {"type": "array", "items": {"type": "string"}},
            },
        },
    },
    "Insight": _INSIGHT,
    "InsightPage": {
        "type": "object",
        "required": ["insights", "more"],
        "properties": {
            "insights": {"type": "array", "items": {"$ref": "#/components/schemas/Insight"}},
            "more": {"type": "boolean", "description": "whether there are more in this direction"},
        },
    },
    "Recommendations": {
        "type": "object",
        "required": ["dealer_id", "at", "known", "model_version", "recommendations"],
        "properties": {
            "dealer_id": {"type": "string"},
            "at": {"type": "integer", "description": "the newest event that is in them, ms since epoch"},
            "known": {
                "type": "boolean",
                "description": "whether the dealer has ordered before",
            },
            "model_version": {
                "type": ["string", "null"],
                "description": "the version of next_best_products that ranked them; null: none did",
            },
            "recommendations": {
                "type": "array",
                "items": {"$ref": "#/components/schemas/Recommendation"},
            },
        },
    },
    "Prices": {
        "type": "object",
        "required": ["dealer_id", "at", "version", "margin", "assumed", "groups"],
        "properties": {
            "dealer_id": {"type": "string"},
            "at": _AT,
            "version": {"type": ["string", "null"], "description": "of the model; null where there is none"},
            "margin": {"type": ["number", "null"]},
            "assumed": {"type": "string", "description": "what goes with every advice"},
            "groups": {"type": "array", "items": {"$ref": "#/components/schemas/GroupPrice"}},
        },
    },
    "GroupPrice": {
        "type": "object",
        "required": list(_GROUP_PRICE),
        "properties": _GROUP_PRICE,
    },
    "Recommendation": {
        "type": "object",
        "required": ["product_id", "category", "score", "why"],
        "properties": {
            "product_id": {"type": "string"},
            "category": {"type": "string"},
            "score": {
                "type": "number",
                "description": "the model's probability, or the plain score; 0 where it is only popular",
            },
            "why": {
                "type": "object",
                "required": ["bought_with", "taken_up", "popular_in", "text"],
                "properties": {
                    "bought_with": {
                        "type": "array",
                        "items": {"type": "string"},
                        "description": "products of the dealer that it is ordered with, the strongest first",
                    },
                    "taken_up": {
                        "type": "number",
                        "description": "dealers that ordered it for the first time, decayed",
                    },
                    "popular_in": {"type": ["string", "null"]},
                    "text": {"type": "string", "description": "the same in words"},
                },
            },
        },
    },
    "Health": {
        "type": "object",
        "required": ["ready"],
        "properties": {"ready": {"type": "boolean"}, "checks": {"type": "object"}},
    },
    "SearchAnswer": {
        "type": "object",
        "required": ["hits", "corrected", "encoder", "took_ms"],
        "properties": {
            "hits": {"type": "array", "items": {"$ref": "#/components/schemas/SearchHit"}},
            "corrected": {
                "type": "object",
                "additionalProperties": {"type": "string"},
                "description": "misspelt words, and what was taken for them",
            },
            "encoder": {"type": "string"},
            "kinds": {
                "type": "array",
                "items": {"type": "string"},
                "description": "kinds of vectors that were searched with",
            },
            "took_ms": {"type": "number", "description": "milliseconds, encoder included"},
            "held_out": {"type": "boolean", "description": "ranked without feedback, to measure its lift"},
        },
    },
    "SearchHit": {
        "type": "object",
        "required": ["type", "id", "score", "text", "highlights", "fields", "why"],
        "properties": {
            "type": {"type": "string", "enum": ["product", "document", "dealer"]},
            "id": {"type": "string"},
            "score": {
                "type": "number",
                "description": "sum over the lists of 1/(60 + rank), in `words` times the square of the share "
                "of the query's words that it has; and that times `weight`",
            },
            "text": {"type": "string", "description": "the chunk that was found"},
            "chunk": {"type": ["integer", "null"]},
            "start": {"type": ["integer", "null"], "description": "first character in the original text"},
            "end": {"type": ["integer", "null"], "description": "first character behind it"},
            "highlights": {
                "type": "array",
                "items": {"type": "array", "items": {"type": "integer"}},
                "description": "the query's words in `text`: [start, end) in characters",
            },
            "fields": {"type": "object"},
            "feedback_id": {"type": "string", "description": "subject_id of feedback about this hit"},
            "weight": {"type": "number", "description": "what feedback makes of the score: a factor"},
            "why": {
                "type": "object",
                "description": "list (meaning, words, like-KIND) -> rank in it from 1, and score",
                "additionalProperties": {
                    "type": "object",
                    "properties": {"rank": {"type": "integer"}, "score": {"type": "number"}},
                },
            },
        },
    },
    "Problem": {
        "type": "object",
        "required": ["type", "title", "status", "detail", "instance", "remedy"],
        "properties": {
            "type": {"type": "string", "format": "uri-reference"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string", "description": "what came and what is allowed"},
            "instance": {"type": "string"},
            "remedy": {"type": "string", "description": "what to do"},
        },
    },
}


def document() -> dict[str, Any]:
    """The whole document."""
    paths: dict[str, dict[str, Any]] = defaultdict(dict)
    for route in ROUTES:
        paths[route.path][route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "DealerIQ", "version": API_VERSION, "license": {"name": "Apache-2.0"}},
        "paths": dict(paths),
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", route.path)
    ] + [
        {"name": name, "in": "query", "description": meaning, "schema": {"type": "string"}}
        for name, meaning in route.query.items()
    ]
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "parameters": parameters,
        "responses": {
            "200": {"description": "the answer", "content": _content(route.answer)},
            **_problems(route),
        },
    }
    if route.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": dict(route.body)}},
        }
    if route.guarded:
        operation["security"] = [{}, {"token": []}]
    return operation


def _content(answer: str) -> dict[str, Any]:
    if "/" in answer:
        return {answer: {"schema": {"type": "string"}}}
    schema = {"$ref": f"#/components/schemas/{answer}"} if answer in SCHEMAS else {"type": "object"}
    return {"application/json": {"schema": schema}}


def _problems(route: Route) -> dict[str, Any]:
    titles: dict[str, list[str]] = defaultdict(list)
    for slug in (*route.problems, "internal"):
        titles[str(KINDS[slug].status)].append(KINDS[slug].title)
    schema = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": "; ".join(each), "content": schema} for status, each in titles.items()}
