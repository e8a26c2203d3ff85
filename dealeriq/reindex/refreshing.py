"""A refresh asked for and waited for; the agents do it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from connectors.redis import connect
from connectors.registry import Registry
from connectors.whole import WholeTopic
from dealeriq.settings import Settings
from models.embedding import OWNERS, Owner
from schemas.catalogue import topic
from schemas.codec import Decoder
from schemas.errors import ContractError, DealerIQError
from schemas.validate import valid
from streams.agents.embedded import Embedded
from streams.agents.images import of_address
from streams.agents.refresh import RefreshLog

__all__ = ["AgentAwayError", "pictures", "refresh"]

_LOOK_S = 0.5
_TOLD_S = 10.0
_READ_S = 600.0
_ASKED = 1_000


class AgentAwayError(DealerIQError):
    """An agent did not say in time that everything is looked at again; it goes on, if it runs at all."""

    remedy = "See that the agent runs (search.enabled, image.enabled); what was asked for is done when it does."
    exit_code = 4


def refresh(settings: Settings, progress: Callable[[str], None], *, wait_s: float) -> dict[str, Any]:
    """Ask every agent that encodes for a refresh, and wait; return what each looked at.

    Raises AgentAwayError, and what Redis raises.
    """
    agents = {"embed-agent": tuple(OWNERS)} | ({"image-agent": ("products",)} if settings.image.enabled else {})
    store, asked_ms = connect(settings.redis), int(time.time() * 1000)
    logs = {name: RefreshLog(store, name) for name in agents}
    for log in logs.values():
        log.ask(asked_ms)
    deadline, told, found = time.monotonic() + wait_s, time.monotonic(), {}
    for name, log in logs.items():
        places = {
            (each, number)
            for each in agents[name]
            for number in range(settings.kafka.partitions_of(topic(each)))
        }
        while True:
            done = log.done()
            left = [place for place in places if place not in done or done[place].asked_ms < asked_ms]
            if not left:
                break
            if time.monotonic() > deadline:
                raise AgentAwayError(f"{name}: {len(left)} of {len(places)} partitions are not refreshed")
            if time.monotonic() - told > _TOLD_S:
                progress(f"{name}: {len(left)} of {len(places)} partitions are left")
                told = time.monotonic()
            time.sleep(_LOOK_S)
        runs = {(done[place].records, done[place].seconds) for place in places}
        found[name] = {
            "records": sum(records for records, _ in runs),
            "seconds": max(seconds for _, seconds in runs),
        }
    return found


def pictures(settings: Settings, encoder: str) -> dict[str, Any]:
    """Return how many products have a picture, and of how many the encoder has none yet."""
    embedded = Embedded(connect(settings.redis), "image")
    decoder = Decoder.of_topic("products", Registry(settings.registry).schema)
    newest: dict[bytes, tuple[int, str | None]] = {}
    whole = WholeTopic(settings.kafka, "products", "dealeriq-price")
    try:
        for message in whole.records(_READ_S):
            if message.value() is None:
                newest.pop(message.key(), None)
                continue
            try:
                record = valid("products", decoder.decode(message.value()))
            except ContractError:
                continue  # a dead letter of the agent's
            known = newest.get(message.key())
            if known is None or record["event_time"] >= known[0]:
                address = None if record["deleted"] else record["image_url"]
                newest[message.key()] = record["event_time"], address
    finally:
        whole.close()
    there = [(key, address) for key, (_, address) in newest.items() if address is not None]
    changed = 0
    for start in range(0, len(there), _ASKED):
        some = there[start : start + _ASKED]
        known_of = embedded.read([Owner("product", key.decode(errors="replace")) for key, _ in some])
        for (_, address), held in zip(some, known_of, strict=True):
            same = held is not None and held.fingerprint.startswith(f"{of_address(address, encoder)}:")
            changed += not (same and held is not None and held.chunks)
    return {"encoder": encoder, "records": len(there), "changed": changed}
