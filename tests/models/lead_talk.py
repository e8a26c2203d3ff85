"""Conversations with outcomes for the tests of leads: who asks for a price buys, who complains does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.lake_tables import write_events

START, DAY = 1_483_228_800_000, 86_400_000
WANTS = {"place_order": 2.0, "price_negotiation": 1.0, "small_talk": -0.5, "complaint": -1.5, "other": -0.2}
SOURCES = ("crm", "shop", "anna", "web")
Records = list[dict[str, Any]]


def talk(
    count: int = 400, days: float = 120, seed: int = 5, mark: str = "t", turned: int | None = None
) -> tuple[Records, Records]:
    """Return enriched messages and outcomes of `count` conversations, each in the order of event time.

    From conversation `turned` on the world is the other way round.
    """
    rng = np.random.default_rng(seed)
    names = list(WANTS)
    messages: Records = []
    outcomes: Records = []
    for at in range(count):
        dealer, begins = f"{mark}-D{at % 11}", int(START + at * days * DAY / count)
        own = rng.choice(names, size=int(rng.integers(1, 5)))
        odds = 2.0 * float(np.mean([WANTS[each] for each in own]))
        for turn, intent in enumerate(own):
            messages.append(
                {
                    "event_id": f"{mark}-e{at}-{turn}", "conversation_id": f"{mark}-c{at}", "dealer_id": dealer,
                    "customer_id": None, "sender": "customer" if turn % 2 == 0 else "dealer",
                    "text": "x" * int(rng.integers(5, 200)), "language": "en", "intent": str(intent),
                    "intent_score": float(rng.uniform(0.3, 0.9)), "sentiment": float(rng.uniform(-1, 1)),
                    "urgency": float(rng.uniform(0, 1)), "encoder": "e@1", "cause_id": f"{mark}-m{at}-{turn}",
                    "event_time": begins + turn * 60_000,
                }
            )  # fmt: skip
        if turned is not None and at >= turned:
            odds = -odds
        won = rng.random() < 1 / (1 + np.exp(-odds))
        outcomes.append(
            {
                "event_id": f"{mark}-f{at}", "dealer_id": dealer, "subject_type": "chat",
                "subject_id": f"{mark}-m{at}-{len(own) - 1}", "kind": "outcome", "value": 1.0 if won else -1.0,
                "comment": None, "source": SOURCES[at % len(SOURCES)],
                "event_time": begins + len(own) * 60_000 + int(DAY * 0.2),
            }
        )  # fmt: skip
    messages.sort(key=lambda each: each["event_time"])
    outcomes.sort(key=lambda each: each["event_time"])
    return messages, outcomes


def write_talk(root: Path) -> None:
    """Write the conversations to a lake, with feedback that tells no outcome among them."""
    messages, outcomes = talk()
    other = outcomes[0] | {"event_id": "rated", "kind": "rating", "value": 5.0}
    lost = outcomes[0] | {"event_id": "lost", "subject_id": "never came"}
    write_events(root, "chats.enriched", messages)
    write_events(root, "feedback", sorted([*outcomes, other, lost], key=lambda each: each["event_time"]))
