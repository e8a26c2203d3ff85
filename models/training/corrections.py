"""What people put right about chat messages, with the messages' vectors: what models of texts learn from.

A row is a correction, seen when it comes: its text and what is right are both there then, so nothing is of the
future.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from models.settings import TextSettings

if TYPE_CHECKING:
    from models.text import Encoder
    from models.training.events import Stream

__all__ = ["corrections", "encoder", "vectors"]

_LONGEST = 10_000  # characters of a text that are looked at


def corrections(stream: Stream, right: Callable[[dict[str, Any]], float | None]) -> pa.Table:
    """Return the corrections of chats of which `right` says what is right; None leaves one out.

    Columns: `event_id`, `dealer_id`, `source`, `right`, `event_timestamp`, and the vector's, `@encoder#place`.
    """
    said = stream.events(
        "feedback",
        ["event_id", "dealer_id", "subject_type", "subject_id", "kind", "value", "comment", "source"],
        "subject_type = 'chat' AND kind = 'correction' AND comment IS NOT NULL",
    )
    told = [(each, value) for each in said.to_pylist() if (value := right(each)) is not None]
    wanted = {each["subject_id"] for each, _ in told}
    written = stream.events("chats", ["event_id", "text"]) if told else None
    texts = {} if written is None else {
        key: text
        for key, text in zip(written["event_id"].to_pylist(), written["text"].to_pylist(), strict=True)
        if key in wanted
    }  # fmt: skip
    kept = [(each, value) for each, value in told if each["subject_id"] in texts]
    reads = encoder()
    found = vectors([texts[each["subject_id"]] for each, _ in kept])
    columns = {
        f"@{reads.identity}#{at}": found[:, at] if kept else np.empty(0, np.float32)
        for at in range(reads.dimension)
    }
    names = ("event_id", "dealer_id", "source")
    return pa.table(
        {
            **{name: pa.array([each[name] for each, _ in kept], pa.string()) for name in names},
            "right": pa.array([value for _, value in kept], pa.float64()),
            "event_timestamp": pa.array([each["event_time"] for each, _ in kept], pa.int64()),
            **columns,
        }
    )


def vectors(texts: Sequence[str]) -> NDArray[np.float32]:
    """Return the texts' vectors, each text's the same however often and beside what it is asked for.

    A vector's last bits depend on its batch; a set that is made a second time must have the first one's.
    """
    known, reads = _remembered(), encoder()
    if fresh := [each for each in dict.fromkeys(texts) if each not in known]:
        known.update(zip(fresh, reads.encode([each[:_LONGEST] for each in fresh]), strict=True))
    return np.array([known[each] for each in texts], np.float32).reshape(-1, reads.dimension)


@cache
def encoder() -> Encoder:
    """Return the encoder of the settings that a training was given."""
    from models.text import text_encoder
    from models.training.child import text_settings

    return text_encoder(TextSettings(**text_settings()))


@cache
def _remembered() -> dict[str, NDArray[np.float32]]:
    """Vectors by their texts, as long as the process of a training lives."""
    return {}
