"""What feedback may be about: a small view in the online store of subjects lately seen.

One key a subject, `dealeriq:subject:<type>:<id>`, holding a JSON list [dealer_id, label, event_time ms]; it
expires after `agents.subject_days`. The agent that derives a subject's events writes it, after Kafka has
acknowledged them and before their sources count as done: so a crash repeats the write, and repeating changes
nothing. The agents stay stateless, and reading their source again from the start fills the view again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

__all__ = ["Subject", "Subjects"]


class Subject(NamedTuple):
    """What is known of a subject: whose it is, what was said of it (a chat's intent), and when it happened."""

    dealer_id: str
    label: str
    event_time: int


class Subjects:
    """Reads and writes subjects through a redis-py client; errors are the client's own (`redis.RedisError`)."""

    def __init__(self, redis: Any, keep_days: float = 30.0) -> None:
        self._redis = redis
        self._keep_s = max(1, round(keep_days * 86_400))

    def write(self, subjects: Iterable[tuple[str, str, Subject]]) -> None:
        """Store (type, id, subject) each, in one round trip."""
        pipeline = self._redis.pipeline(transaction=False)
        for kind, identity, subject in subjects:
            pipeline.set(_key(kind, identity), json.dumps(subject, separators=(",", ":")), ex=self._keep_s)
        pipeline.execute()

    def read(self, wanted: Sequence[tuple[str, str]]) -> list[Subject | None]:
        """Return the subject of each (type, id), None where it is not known; one round trip."""
        if not wanted:
            return []
        pipeline = self._redis.pipeline(transaction=False)  # not MGET: keys of a cluster lie on several nodes
        for kind, identity in wanted:
            pipeline.get(_key(kind, identity))
        return [None if found is None else Subject(*json.loads(found)) for found in pipeline.execute()]


def _key(kind: str, identity: str) -> str:
    return f"dealeriq:subject:{kind}:{identity}"
