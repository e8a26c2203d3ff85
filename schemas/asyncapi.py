"""The AsyncAPI 3 document of all topics, generated from the catalogue."""

from __future__ import annotations

from typing import Any

from schemas.catalogue import CATALOGUE, Topic

__all__ = ["document"]

_AVRO = "application/vnd.apache.avro;version=1.9.0"
_TEXT = {"type": "string"}


def document(version: str = "1.0.0") -> dict[str, Any]:
    """Return the document as plain data. Dead-letter topics carry the original bytes and `dlq_*` headers."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "DealerIQ",
            "version": version,
            "description": "Events of a dealer network and what is derived from them. Values are Avro in the "
            "Confluent wire format; subjects are `TOPIC-value`.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "avro/binary",
        "servers": {
            "kafka": {
                "host": "{bootstrap}",
                "protocol": "kafka",
                "description": "The Kafka cluster that kafka.bootstrap names.",
                "variables": {
                    "bootstrap": {"default": "localhost:9092", "description": "host:port of a broker"}
                },
            }
        },
        "channels": {_id(each): _channel(each) for each in CATALOGUE.values()},
        "operations": dict(_operation(each) for each in CATALOGUE.values() if not each.is_dead_letters),
        "components": {
            "messages": {_id(each): _message(each) for each in CATALOGUE.values()},
            "messageTraits": {"cloudEvent": {"headers": _cloud_event()}},
        },
    }


def _id(topic: Topic) -> str:
    return topic.name.replace(".", "_")


def _channel(topic: Topic) -> dict[str, Any]:
    configuration: dict[str, Any] = {
        "cleanup.policy": ["compact" if topic.compacted else "delete"],
        "max.message.bytes": topic.max_message_bytes,
    }
    if topic.retention_ms is not None:
        configuration["retention.ms"] = topic.retention_ms
    return {
        "address": topic.name,
        "description": topic.description,
        "servers": [{"$ref": "#/servers/kafka"}],
        "messages": {_id(topic): {"$ref": f"#/components/messages/{_id(topic)}"}},
        "tags": [{"name": topic.owner}, {"name": "inbound" if topic.inbound else "derived"}],
        "bindings": {
            "kafka": {
                "topic": topic.name,
                "partitions": topic.partitions,
                "topicConfiguration": configuration,
                "bindingVersion": "0.5.0",
            }
        },
    }


def _operation(topic: Topic) -> tuple[str, dict[str, Any]]:
    """DealerIQ receives inbound topics and sends the others."""
    action = "receive" if topic.inbound else "send"
    return f"{action}_{_id(topic)}", {
        "action": action,
        "channel": {"$ref": f"#/channels/{_id(topic)}"},
        "summary": topic.description,
        "messages": [{"$ref": f"#/channels/{_id(topic)}/messages/{_id(topic)}"}],
    }


def _message(topic: Topic) -> dict[str, Any]:
    key: dict[str, Any] = {"type": "string", "description": f"{topic.key[0]}, UTF-8"}
    if topic.key_schema is not None:
        key = {"schemaFormat": _AVRO, "schema": topic.key_schema}
    message: dict[str, Any] = {
        "name": topic.name,
        "summary": topic.description,
        "bindings": {"kafka": {"key": key, "bindingVersion": "0.5.0"}},
    }
    if topic.schema is None:
        message["contentType"] = "application/octet-stream"
        message["headers"] = _dead_letter()
    else:
        message["payload"] = {"schemaFormat": _AVRO, "schema": topic.schema}
        message["traits"] = [{"$ref": "#/components/messageTraits/cloudEvent"}]
        message["bindings"]["kafka"] |= {"schemaIdLocation": "payload", "schemaIdPayloadEncoding": "confluent"}
    return message


def _cloud_event() -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "ce_specversion": {"type": "string", "const": "1.0"},
            "ce_id": _TEXT | {"description": "event_id"},
            "ce_type": _TEXT | {"description": "the topic"},
            "ce_source": _TEXT | {"description": "who produced it"},
            "ce_time": {"type": "string", "format": "date-time", "description": "event time, UTC"},
            "ce_subject": _TEXT | {"description": "the entity it is about"},
            "traceparent": _TEXT | {"description": "W3C trace context"},
        },
    }


def _dead_letter() -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["dlq_error", "dlq_topic", "dlq_partition", "dlq_offset", "dlq_stage", "dlq_time"],
        "properties": {
            "dlq_error": _TEXT | {"description": "why, in one sentence"},
            "dlq_topic": _TEXT | {"description": "topic it came from"},
            "dlq_partition": _TEXT | {"description": "partition it came from"},
            "dlq_offset": _TEXT | {"description": "offset it came from"},
            "dlq_stage": _TEXT | {"description": "who could not read it"},
            "dlq_time": _TEXT | {"description": "wall clock, ms since the epoch"},
        },
    }
