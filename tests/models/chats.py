"""Lakes for the tests of intents: a trade's jargon, corrected by people; carried chats, told by their words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from connectors import demo_data
from schemas.ids import event_id
from tests.lake_tables import write_events

START, DAY = 1_483_228_800_000, 86_400_000
JARGON = {
    "order_status": ["PO {n} ETA?", "any POD for {n}", "{n} still open, status pls", "what's the ETA on {n}"],
    "return": ["need an RMA for {n}", "RMA no. for batch {n} pls", "{n} goes back, send label"],
    "invoice_payment": [
        "credit memo for {n} missing",
        "{n} net 30 or net 60?",
        "dunning letter on {n} is wrong",
    ],
    "stock_enquiry": ["ATP of SKU {n}?", "lead time SKU {n}", "MOQ and ATP for {n}"],
    "place_order": ["put {n} on blanket PO", "call off {n} from the frame", "20 PAL of {n} ex works"],
}
"""What dealers write, in words that no example has."""
TONES = {
    "sentiment": {
        "RMA {n} is BER again": -0.8,
        "{n} DOA, third time": -1.0,
        "POD for {n}?": 0.0,
        "ATP of {n}": 0.0,
        "{n} QC passed with flying colours": 0.9,
        "fill rate on {n} is 100, top": 0.8,
    },
    "urgency": {
        "line down, {n} missing": 1.0,
        "AOG for {n}": 1.0,
        "{n} at next cycle count": 0.0,
        "{n} in Q4 is ok": 0.1,
        "OTIF of {n} at risk": 0.8,
        "{n} for the annual review": 0.0,
    },
}
"""How dealers say things, in words that no example has."""
_WORDS = {
    "goodbye": r"\b(bye|goodnight|good night|ttyl|talk to you later|see you)\b",
    "praise": r"\b(thanks|thank you|awesome|amazing|love it|great job)\b",
    "complaint": r"\b(hate|annoying|terrible|worst|sucks|disappointed|boring)\b",
    "small_talk": r"\b(hi|hello|hey|how are you|where are you from|favorite|weather)\b",
}


def write_jargon(root: Path, count: int = 420, days: int = 120, seed: int = 2) -> None:
    """Write messages in jargon, each corrected by one of four people within minutes."""
    rng = np.random.default_rng(seed)
    pairs = [(intent, text) for intent, texts in JARGON.items() for text in texts]
    said = []
    for at in range(count):
        intent, text = pairs[int(rng.integers(len(pairs)))]
        said.append((text.format(n=int(rng.integers(100, 99_999))), intent, START + at * days * DAY // count))
    _write(root, said)


def write_tones(root: Path, tone: str, count: int = 420, days: int = 120, seed: int = 3) -> None:
    """Write messages in jargon, each with its tone put right by one of four people within minutes, about."""
    rng = np.random.default_rng(seed)
    pairs = list(TONES[tone].items())
    least = -1.0 if tone == "sentiment" else 0.0
    chats: list[dict[str, Any]] = []
    feedback: list[dict[str, Any]] = []
    for at in range(count):
        text, value = pairs[int(rng.integers(len(pairs)))]
        told = float(np.clip(value + rng.normal(0, 0.1), least, 1.0))
        chat, fixed = event_id("chats", tone, at), {"dealer_id": f"D{at % 13}"}
        time = START + at * days * DAY // count
        chats.append(
            {"event_id": chat, "conversation_id": f"c{at}", "customer_id": None, "sender": "customer",
             "text": text.format(n=int(rng.integers(100, 99_999))), "language": "en", "event_time": time,
             **fixed}
        )  # fmt: skip
        feedback.append(
            {"event_id": event_id("feedback", tone, at), "subject_type": "chat", "subject_id": chat,
             "kind": "correction", "value": told, "comment": tone, "source": f"person-{at % 4}",
             "event_time": time + 60_000, **fixed}
        )  # fmt: skip
    # What teaches nothing: a value that the tone cannot have, an intent put right.
    feedback.append(feedback[0] | {"event_id": "too-much", "value": 7.0})
    feedback.append(feedback[0] | {"event_id": "other", "comment": "return"})
    write_events(root, "chats", chats)
    write_events(root, "feedback", sorted(feedback, key=lambda one: one["event_time"]))


def write_carried_chats(root: Path, each: int = 110) -> int:
    """Write carried messages of 150 days whose words tell an intent, `each` of one, as they were corrected."""
    source = demo_data.chats()
    frame = source.frame(0, len(source))
    found: dict[str, list[tuple[str, str, int]]] = {name: [] for name in _WORDS}
    late = frame["event_time"] > demo_data.YEAR_END_MS - 150 * DAY
    kept = frame.filter(late & (frame["text"].str.len_chars() < 120))
    for text, time in zip(kept["text"].to_list(), kept["event_time"].to_list(), strict=True):
        named = [name for name, words in _WORDS.items() if re.search(words, text.lower())]
        if len(named) == 1:
            found[named[0]].append((text, named[0], time))
    rng = np.random.default_rng(4)
    said = [some[i] for some in found.values() for i in rng.choice(len(some), each, replace=False)]
    _write(root, sorted(said, key=lambda one: one[2]))
    return len(said)


def _write(root: Path, said: list[tuple[str, str, int]]) -> None:
    chats: list[dict[str, Any]] = []
    feedback: list[dict[str, Any]] = []
    for at, (text, intent, time) in enumerate(said):
        chat = event_id("chats", "tests", at)
        fixed = {"dealer_id": f"D{at % 13}", "event_time": time}
        chats.append(
            {"event_id": chat, "conversation_id": f"c{at}", "customer_id": None, "sender": "customer",
             "text": text, "language": "en", **fixed}
        )  # fmt: skip
        feedback.append(
            {"event_id": event_id("feedback", "tests", at), "subject_type": "chat", "subject_id": chat,
             "kind": "correction", "value": 1.0, "comment": intent, "source": f"person-{at % 4}", **fixed,
             "event_time": time + 60_000}
        )  # fmt: skip
    # What teaches nothing: a rating, an intent that there is not, a correction of a message that never came.
    for kind, comment, subject in (
        ("rating", "return", 0), ("correction", "no such intent", 0), ("correction", "return", -1)
    ):  # fmt: skip
        wrong = feedback[0] | {
            "event_id": f"wrong-{kind}-{comment}-{subject}",
            "kind": kind,
            "comment": comment,
        }
        feedback.append(wrong | ({"subject_id": "nothing"} if subject else {}))
    write_events(root, "chats", chats)
    write_events(root, "feedback", sorted(feedback, key=lambda one: one["event_time"]))
