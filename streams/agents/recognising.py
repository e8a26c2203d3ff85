"""Records that say, but for their time, what is embedded of their owner: known by their bytes, and not read."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from models.embedding import marked, owner_of_key
from schemas.codec import Decoder
from schemas.errors import ContractError
from streams.agents.embedded import Embedded
from streams.agents.stage import Key, Message, Recogniser, Sorted, key_of

__all__ = ["KnownByBytes"]


class KnownByBytes(Recogniser):
    """Knows the records of owners for which the encoder of this identity has nothing to do."""

    def __init__(self, embedded: Embedded, encoder: str) -> None:
        self._embedded, self._encoder = embedded, encoder

    def mark(self, message: Message, decoder: Decoder) -> tuple[str, int]:
        """Return a message's mark and time."""
        try:
            return marked(message.topic, decoder, message.value, self._encoder)
        except ContractError:  # who reads it says so
            return "", 0

    def sort(
        self, messages: Sequence[Message], decoders: Mapping[str, Decoder], busy: Collection[Key]
    ) -> Sorted:
        """Sort out what is known, and keep its times; raises what Redis raises."""
        seen = []
        for message in messages:
            key = key_of(message)
            mark, time_ms = ("", 0) if key in busy else self.mark(message, decoders[message.topic])
            seen.append((owner_of_key(*key), mark, time_ms))
        known = self._embedded.again(seen)
        return Sorted(
            [each for each, same in zip(messages, known, strict=True) if not same],
            [each for each, same in zip(messages, known, strict=True) if same],
            max([time_ms for (_, _, time_ms), same in zip(seen, known, strict=True) if same], default=None),
        )
