"""What is embedded: a small view in the online store of each owner's chunks, so that nothing is encoded twice.

One key an owner, `dealeriq:embedded:<type>/<id>` (of pictures `dealeriq:embedded-image:<type>/<id>`, of another
home with its name before the type), holding a JSON list [event_time ms, fingerprint of all chunks, chunk ids,
ids on their way, mark of the record]. The agent writes what is on its way before Kafka has it, and what is
there after Kafka has it and before its source counts as done: so a crash encodes at most the batch in flight
again, and leaves no chunk behind that nobody knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import orjson

from models.embedding import Owner
from models.embedding.topics import FIRST

__all__ = ["Embedded", "Known"]


class Known(NamedTuple):
    """What is in the embeddings topic of one owner; no chunks where it is deleted.

    `maybe` are chunks that were on their way when this was written: they are counted as there when it comes to
    deleting, and as not there when it comes to encoding. `time_ms` is None before the first event is through.
    `mark` is of the record that the chunks are of (`mark_of`), empty where it is not known.
    """

    time_ms: int | None
    fingerprint: str
    chunks: Sequence[str]
    maybe: Sequence[str] = ()
    mark: str = ""


class Embedded:
    """Reads and writes what is known through a redis-py client; errors are the client's own.

    `kind` of encoder, and its home: each knows for itself.
    """

    def __init__(self, redis: Any, kind: str = "text", home: str = FIRST) -> None:
        self._redis = redis
        self._prefix = "dealeriq:embedded" if kind == "text" else f"dealeriq:embedded-{kind}"
        if home != FIRST:
            self._prefix += f":{home}"

    def read(self, owners: Sequence[Owner]) -> list[Known | None]:
        """Return what is known of each owner, None for one never seen; one round trip."""
        if not owners:
            return []
        found = self._redis.mget([self._key(owner) for owner in owners])
        return [None if value is None else Known(*orjson.loads(value)) for value in found]

    def again(self, seen: Sequence[tuple[Owner, str, int]]) -> list[bool]:
        """Say of records, in order, which are known: what they say is embedded, and they are not older.

        Each is given as its owner, its mark (empty: not known) and its event time, ms. What is known of an
        owner gets the time of those that are. After one that is not known no more of its owner's are: they
        have to be seen in order. At most two round trips.
        """
        keys = [self._key(owner) for owner, _, _ in seen]
        distinct = list(dict.fromkeys(keys))
        found = self._redis.mget(distinct) if distinct else []
        held: dict[str, bytes | None] = dict(zip(distinct, found, strict=True))
        known, moved = [], {}
        for key, (_, mark, time_ms) in zip(keys, seen, strict=True):
            value = held[key]
            # Behind the chunks: nothing on its way, and the mark.
            if value is None or not mark or not value.endswith(b',[],"%b"]' % mark.encode()):
                held[key] = None
                known.append(False)
                continue
            end = value.index(b",")
            before = int(value[1:end])
            if time_ms > before:
                held[key] = moved[key] = b"[%d%b" % (time_ms, value[end:])
            elif time_ms < before:
                held[key] = None
            known.append(time_ms >= before)
        if moved:
            self._redis.mset(moved)
        return known

    def write(self, changes: Iterable[tuple[Owner, Known | None]]) -> None:
        """Store what is now known of each owner, None to forget it."""
        forgotten: list[str] = []
        stored: dict[str, bytes] = {}
        for owner, known in changes:
            if known is None:
                forgotten.append(self._key(owner))
            else:
                stored[self._key(owner)] = orjson.dumps(list(known))
        if stored:
            self._redis.mset(stored)
        if forgotten:
            self._redis.delete(*forgotten)

    def _key(self, owner: Owner) -> str:
        return f"{self._prefix}:{owner}"
