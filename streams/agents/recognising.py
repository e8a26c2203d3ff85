"""Records that say, but for their time, what is embedded of their owner: known by their bytes, and not read."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from models.embedding import Owner, mark_of, owner_of_key
from schemas.codec import Decoder
from schemas.errors import ContractError
from schemas.validate import allows
from streams.agents.embedded import Embedded
from streams.agents.stage import Event, Key, Message, Sorted, key_of

__all__ = ["mark_of_event", "recognised"]


def recognised(
    messages: Sequence[Message],
    decoders: Mapping[str, Decoder],
    busy: Collection[Key],
    embedded: Embedded,
    encoder: str,
) -> Sorted:
    """Sort out the records that an encoder has nothing to do for, and keep their times.

    `busy` are keys of what is on its way, whose messages are left to be read. Raises what Redis raises.
    """
    seen = [_seen(message, decoders, busy, encoder) for message in messages]
    known = embedded.again(seen)
    return Sorted(
        [each for each, same in zip(messages, known, strict=True) if not same],
        [each for each, same in zip(messages, known, strict=True) if same],
        max([time_ms for (_, _, time_ms), same in zip(seen, known, strict=True) if same], default=None),
    )


def mark_of_event(event: Event, encoder: str) -> str:
    """Return the mark by which a record that says the same is recognised; empty where none can be."""
    return "" if event.said is None else mark_of(event.topic, event.said, encoder)


def _seen(
    message: Message, decoders: Mapping[str, Decoder], busy: Collection[Key], encoder: str
) -> tuple[Owner, str, int]:
    """A message's owner, mark and time; no mark where it has to be read."""
    key = key_of(message)
    owner = owner_of_key(*key)
    try:
        apart = None if message.value is None else decoders[message.topic].apart(message.value)
    except ContractError:
        return owner, "", 0
    if apart is None or key in busy or not allows(message.topic, "event_time", apart[1]):
        return owner, "", 0
    return owner, mark_of(message.topic, apart[0], encoder), apart[1]
