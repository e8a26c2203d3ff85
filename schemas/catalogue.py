"""The topics, declared once: name, key, schema, partitions, retention, who writes and who reads.

Topic creation, registration, Flink columns, the AsyncAPI document and the docs page all come from here. To add
a topic: put its Avro schema in `schemas/topics/NAME.avsc`, add one `_declare(...)` line below, and record the
schema with `dealeriq schema record`.

A message's key is the text of its one key field in UTF-8, or Avro with the key schema where the topic has one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from schemas.errors import ContractError, UnknownTopicError

__all__ = ["CATALOGUE", "COMPATIBILITY", "MAX_MESSAGE_BYTES", "TOPICS_DIR", "Topic", "subjects", "topic"]

Schema = dict[str, Any]

TOPICS_DIR = Path(__file__).parent / "topics"
COMPATIBILITY = "BACKWARD_TRANSITIVE"
_DAY_MS = 86_400_000
_EVENTS = 400 * _DAY_MS  # a year and the longest window: every feature can be rebuilt from the log alone
_DEAD_LETTERS = 30 * _DAY_MS
# A dead letter may come from a topic whose limit someone raised, and carries more headers than it came with.
MAX_MESSAGE_BYTES: Mapping[str, int] = {"records": 1_048_576, "dlq": 16_777_216}


@dataclass(frozen=True)
class Topic:
    """One topic's contract.

    `key` names the fields of the message key. `schema` is None for dead letters: their value is the original
    bytes. `retention_ms` is None when records are kept until a newer one of the same key replaces them
    (`compacted`), and -1 when they are kept for ever. `owner`, `writers` and `readers` name parts of the
    system; `inbound` topics are written by others. What a producer compressed the broker keeps as it is.
    """

    name: str
    key: tuple[str, ...]
    schema: Schema | None
    key_schema: Schema | None = None
    partitions: int = 4
    retention_ms: int | None = _EVENTS
    compacted: bool = False
    compatibility: str = COMPATIBILITY
    owner: str = ""
    writers: tuple[str, ...] = ()
    readers: tuple[str, ...] = ()
    inbound: bool = False

    @property
    def dead_letters(self) -> str:
        """Name of the dead-letter topic."""
        return f"{self.name}.dlq"

    @property
    def is_dead_letters(self) -> bool:
        """True for a dead-letter topic."""
        return self.name.endswith(".dlq")

    @property
    def max_message_bytes(self) -> int:
        """The largest batch of one message that the topic takes, headers included."""
        return MAX_MESSAGE_BYTES["dlq" if self.is_dead_letters else "records"]

    @property
    def config(self) -> dict[str, str]:
        """Kafka's topic settings, as given at creation."""
        config = {
            "cleanup.policy": "compact" if self.compacted else "delete",
            "max.message.bytes": str(self.max_message_bytes),
        }
        if self.retention_ms is not None:
            config["retention.ms"] = str(self.retention_ms)
        return config

    @property
    def description(self) -> str:
        """What one record is, in a sentence."""
        if self.schema is None:
            source = self.name.removesuffix(".dlq")
            return f"What could not be read from {source}: original bytes, and why in headers."
        return str(self.schema.get("doc", ""))


def topic(name: str) -> Topic:
    """Return the topic `name`. Raises UnknownTopicError with near names."""
    try:
        return CATALOGUE[name]
    except KeyError:
        from difflib import get_close_matches

        near = get_close_matches(name, CATALOGUE, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UnknownTopicError(f"no topic is called {name!r}{hint}") from None


def subjects() -> Iterator[tuple[str, Schema, Topic]]:
    """Yield (subject, schema, topic) of every schema: `NAME-value`, and `NAME-key` where the key has one."""
    for each in CATALOGUE.values():
        if each.key_schema is not None:
            yield f"{each.name}-key", each.key_schema, each
        if each.schema is not None:
            yield f"{each.name}-value", each.schema, each


def _load(name: str) -> Schema:
    path = TOPICS_DIR / f"{name}.avsc"
    try:
        schema: Schema = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ContractError(
            f"the schema schemas/topics/{path.name} cannot be read: {error}",
            remedy="Restore the file from version control, or reinstall the package.",
        ) from None
    return schema


def _declare(
    name: str,
    key: str,
    owner: str,
    writers: str,
    readers: str,
    *,
    compacted: bool = False,
    forever: bool = False,
    **more: Any,
) -> Topic:
    return Topic(
        name=name,
        key=(key,),
        schema=_load(name),
        compacted=compacted,
        retention_ms=None if compacted else -1 if forever else _EVENTS,
        owner=owner,
        writers=tuple(writers.split()),
        readers=tuple(readers.split()),
        **more,
    )


def _tiles() -> Iterator[Topic]:
    """The tile topics: one for each schema that `dealeriq features compile` wrote."""
    for path in sorted(TOPICS_DIR.glob("tiles.*.key.avsc")):
        name = path.name.removesuffix(".key.avsc")
        key_schema = _load(f"{name}.key")
        yield Topic(
            name=name,
            key=tuple(field["name"] for field in key_schema["fields"]),
            schema=_load(name),
            key_schema=key_schema,
            retention_ms=None,
            compacted=True,
            owner="features",
            writers=("flink",),
            readers=("feature-view",),
        )


def _catalogue() -> Mapping[str, Topic]:
    source = "importer producers"
    of_orders = "flink graph-view recommend-view line-scorer lake"
    declared = [
        _declare("orders", "dealer_id", "sales", source, of_orders, inbound=True),
        _declare("chats", "dealer_id", "care", source, "chat-agent lake", inbound=True),
        _declare(
            "feedback",
            "dealer_id",
            "care",
            source,
            "label-view lead-view ranking-view flink lake",
            inbound=True,
        ),
        _declare(
            "products",
            "product_id",
            "catalogue",
            source,
            "embed-agent image-agent vector-view graph-view flink lake",
            inbound=True,
            compacted=True,
        ),
        _declare(
            "documents",
            "document_id",
            "catalogue",
            source,
            "embed-agent vector-view lake",
            inbound=True,
            compacted=True,
        ),
        _declare(
            "dealers",
            "dealer_id",
            "network",
            source,
            "graph-view recommend-view flink lake",
            inbound=True,
            compacted=True,
        ),
        _declare(
            "inventory",
            "dealer_id",
            "sales",
            source,
            "flink vector-view graph-view recommend-view lake",
            inbound=True,
        ),
        _declare("promotions", "dealer_id", "sales", source, "lake", inbound=True),
        _declare("chats.enriched", "dealer_id", "care", "chat-agent", "label-view lead-view flink lake"),
        _declare("labels", "dealer_id", "models", "label-view", "trainer lake"),
        _declare("scores", "dealer_id", "models", "score-view line-scorer lead-view", "flink lake"),
        # What the online model of leads learns from. One partition, kept for ever: the model is a fold of all
        # of it in order, and so the same wherever it is folded.
        _declare(
            "leads.labelled",
            "dealer_id",
            "models",
            "lead-view",
            "lead-view lake",
            partitions=1,
            forever=True,
        ),
        _declare("insights", "dealer_id", "models", "flink", "insight-view apps lake"),
        _declare(
            "embeddings",
            "chunk_id",
            "models",
            "embed-agent image-agent graph-view recommend-view hybrid-view",
            "vector-view hybrid-view lake",
            compacted=True,
        ),
        # The second home of vectors: one encoder writes to each, and an index says which encoder's it holds.
        _declare(
            "embeddings.second",
            "chunk_id",
            "models",
            "reindex-agent embed-agent",
            "vector-view hybrid-view lake",
            compacted=True,
        ),
        _declare("retraining.requests", "model", "models", "drift people", "trainer", partitions=1),
        # The registry of models is a fold of all of it, from the first record on.
        _declare(
            "model.lifecycle",
            "model",
            "models",
            "trainer people",
            "trainer score-view line-scorer lead-view recommend-view console",
            partitions=1,
            forever=True,
        ),
        # What the monitors saw, and which windows were judged: one record a window, version and monitor.
        _declare(
            "model.monitors",
            "model",
            "models",
            "trainer",
            "trainer people lake",
            partitions=1,
            forever=True,
        ),
        # What was seen of the vectors, and which windows were judged.
        _declare(
            "embeddings.monitors",
            "kind",
            "models",
            "trainer",
            "trainer people lake",
            partitions=1,
            forever=True,
        ),
        _declare("imports", "import_id", "platform", "importer", "importer", compacted=True, partitions=1),
        *_tiles(),
    ]
    dead = [
        Topic(
            name=each.dead_letters,
            key=each.key,
            schema=None,
            partitions=1,
            retention_ms=_DEAD_LETTERS,
            owner=each.owner,
            writers=each.readers,
            readers=("operator",),
        )
        for each in declared
    ]
    return MappingProxyType({each.name: each for each in declared + dead})


CATALOGUE: Mapping[str, Topic] = _catalogue()
