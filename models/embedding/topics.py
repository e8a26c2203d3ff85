"""The two homes of vectors: topics, each with the chunks of one encoder, so that one can take another's place.

Which encoder lives where is known in Redis, one small hash. A new encoder moves into the home that the one in
use does not have; what its predecessor left there is overwritten chunk by chunk, and passed over until then.
"""

from __future__ import annotations

from typing import Any

__all__ = ["FIRST", "SECOND", "TOPICS", "Homes"]

FIRST, SECOND = "embeddings", "embeddings.second"
TOPICS = (FIRST, SECOND)
_IN_USE = "in use"


class Homes:
    """Which encoder writes to which topic, kept through a redis-py client; errors are the client's own."""

    def __init__(self, redis: Any, project: str = "dealeriq") -> None:
        self._redis, self._key = redis, f"{project}:embedded-homes"

    def known(self) -> dict[str, str]:
        """Return the encoder of each topic that has one."""
        found = self._redis.hgetall(self._key)
        return {name: found[name.encode()].decode() for name in TOPICS if name.encode() in found}

    def of(self, encoder: str) -> str | None:
        """Return the topic of an encoder, None where it has none."""
        return next((name for name, identity in self.known().items() if identity == encoder), None)

    def in_use(self) -> str:
        """Return the topic of the encoder in use; the first one where none has settled yet."""
        return str((self._redis.hget(self._key, _IN_USE) or FIRST.encode()).decode())

    def settle(self, encoder: str) -> str:
        """Return the topic of the encoder in use, and note that it is; one that is new takes over the last
        one's.
        """
        home = self.of(encoder) or self.in_use()
        self._redis.hset(self._key, mapping={home: encoder, _IN_USE: home})
        return home

    def settle_beside(self, encoder: str) -> str:
        """Return the topic of an encoder that is to take the place of the one in use."""
        home = self.of(encoder)
        if home is None:
            home = FIRST if self.in_use() == SECOND else SECOND
            self._redis.hset(self._key, home, encoder)
        return home
