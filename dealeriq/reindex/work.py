"""What is left to be encoded, and what that costs: by the topics, and by what is known to be embedded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from connectors.kafka import ensure_topics
from connectors.redis import connect
from connectors.registry import Registry
from connectors.whole import WholeTopic
from dealeriq.settings import Settings
from models.embedding import OWNERS, Owner, owner_of_key, split, whole_fingerprint
from models.embedding.topics import Homes
from models.text import Encoder
from schemas.codec import Decoder
from schemas.errors import ContractError
from schemas.validate import valid
from streams.agents.embedded import Embedded, Known

__all__ = ["Price", "Work", "price", "work"]

_READ_S = 600.0
_ASKED = 1_000
_SAMPLE = 48
_CHARACTERS_A_TOKEN = 4


@dataclass(frozen=True)
class Price:
    """What encoding takes. `records` are all that have a text, `changed` those with something to encode;
    `tokens` is about a quarter of the characters; `seconds` is by the encoder's own rate on some of the texts,
    or by the budget where that is slower; `money` where a price is set.
    """

    encoder: str
    records: int
    changed: int
    chunks: int
    tokens: int
    seconds: float
    money: float | None

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Work:
    """What is left to be encoded: records that have a text, those with something to encode, their chunks and
    characters, and some of the texts.
    """

    records: int = 0
    changed: int = 0
    chunks: int = 0
    characters: int = 0
    sample: tuple[str, ...] = ()


def work(settings: Settings, encoder: Encoder) -> Work:
    """Return what is left for an encoder. Nothing is encoded.

    Raises KafkaUnavailableError, RegistryUnavailableError, and what Redis raises.
    """
    store = connect(settings.redis)
    home = Homes(store).of(encoder.identity)
    embedded = None if home is None else Embedded(store, home=home)
    records = changed = chunks = characters = 0
    sample: list[str] = []
    for owners in _batched(_owners(settings)):
        known = [None] * len(owners) if embedded is None else embedded.read([owner for owner, _ in owners])
        for (_, texts), before in zip(owners, known, strict=True):
            records += 1
            fresh = _fresh(texts, before, encoder.identity)
            changed += bool(fresh)
            chunks += len(fresh)
            characters += sum(map(len, fresh))
            sample += fresh[:1]
    return Work(
        records, changed, chunks, characters, tuple(sample[:: max(1, len(sample) // _SAMPLE)][:_SAMPLE])
    )


def price(
    settings: Settings, encoder: Encoder, *, per_minute: int | None = None, per_million: float | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Price:  # fmt: skip
    """Return what bringing the encoder's vectors up to the topics takes. Some texts are encoded to measure it.

    Raises EncoderUnavailableError, and what `work` raises.
    """
    left, seconds = work(settings, encoder), 0.0
    if left.sample:
        began = clock()
        encoder.encode(left.sample)
        seconds = (clock() - began) * left.characters / sum(map(len, left.sample))
    if per_minute is not None:
        seconds = max(seconds, 60 * left.chunks / per_minute)
    tokens = left.characters // _CHARACTERS_A_TOKEN
    money = None if per_million is None else tokens * per_million / 1e6
    return Price(encoder.identity, left.records, left.changed, left.chunks, tokens, seconds, money)


def _fresh(texts: dict[str, str], before: Known | None, identity: str) -> list[str]:
    """The texts that the embed agent would encode."""
    same = before is not None and before.fingerprint == whole_fingerprint(before.chunks, identity)
    known = set(before.chunks) if before is not None and same else set()
    return [text for chunk, text in texts.items() if chunk not in known]


def _owners(settings: Settings) -> Iterator[tuple[Owner, dict[str, str]]]:
    """Every owner that has a text now, with its chunks: id → text."""
    ensure_topics(settings.kafka, tuple(OWNERS))
    fetch = Registry(settings.registry).schema
    for name in OWNERS:
        decoder, newest = Decoder.of_topic(name, fetch), dict[str, tuple[int, dict[str, str]]]()
        whole = WholeTopic(settings.kafka, name, "dealeriq-price")
        try:
            for message in whole.records(_READ_S):
                key = (message.key() or b"").decode(errors="replace")
                if message.value() is None:
                    newest.pop(key, None)
                    continue
                try:
                    record = valid(name, decoder.decode(message.value()))
                    texts = {chunk.id: chunk.text for chunk in split(name, key, record)}
                except ContractError:
                    continue  # a dead letter of the embed agent's
                if key not in newest or newest[key][0] <= record["event_time"]:
                    newest[key] = record["event_time"], texts
        finally:
            whole.close()
        yield from ((owner_of_key(name, key), texts) for key, (_, texts) in newest.items() if texts)


def _batched(owners: Iterator[Any]) -> Iterator[list[Any]]:
    batch: list[Any] = []
    for each in owners:
        batch.append(each)
        if len(batch) == _ASKED:
            yield batch
            batch = []
    if batch:
        yield batch
