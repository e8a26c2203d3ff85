"""Feast's Redis layout (entity key serialization 3), written and read without Feast."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import mmh3

from features.plan import ViewPlan

__all__ = [
    "clock_key",
    "entity_key",
    "field",
    "identity_key",
    "position_key",
    "timestamp_proto",
    "unwrap_bytes",
    "value_proto",
    "version_field",
]


def entity_key(view: ViewPlan, entity: Mapping[str, str], project: str) -> bytes:
    """Return the hash key of an entity: join keys in order of name, then their values, then the project."""
    names = sorted(view.entity)
    parts = [struct.pack("<I", len(names))]
    parts += [struct.pack("<II", 2, len(name.encode())) + name.encode() for name in names]
    for name in names:
        value = entity[name].encode()
        parts.append(struct.pack("<II", 2, len(value)) + value)
    return b"".join(parts) + project.encode()


def position_key(project: str, view: str) -> str:
    """Return the key of the hash that holds a view's position: `topic:partition` to the next offset."""
    return f"{project}:position:{view}"


def identity_key(project: str, view: str) -> str:
    """Return the key of the mark by which a view knows the store that it began with."""
    return f"{project}:store:{view}"


def clock_key(project: str) -> str:
    """Return the key of the event clock: the latest event time readable, ms since the epoch."""
    return f"{project}:clock"


def field(view: str, feature: str) -> bytes:
    """Return the hash field of a feature."""
    return struct.pack("<I", mmh3.hash(f"{view}:{feature}", signed=False))


def version_field(view: str) -> bytes:
    """Return the hash field that changes with every write of an entity's tiles of a view."""
    return f"_version:{view}".encode()


def value_proto(*parts: bytes | bytearray) -> bytes:
    """Wrap bytes, given in one piece or several, as Feast's ValueProto."""
    return b"".join((b"\x0a", _varint(sum(map(len, parts))), *parts))


def unwrap_bytes(value: bytes) -> bytes:
    """Return the bytes in a ValueProto that `value_proto` wrote."""
    at = 1
    while value[at] & 0x80:
        at += 1
    return value[at + 1 :]


def timestamp_proto(ms: int) -> bytes:
    """Return google.protobuf.Timestamp of ms since the epoch."""
    seconds, rest = divmod(ms, 1000)
    nanos = b"\x10" + _varint(rest * 1_000_000) if rest else b""
    return b"\x08" + _varint(seconds) + nanos


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
