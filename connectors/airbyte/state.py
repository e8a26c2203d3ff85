"""What a source said it need not read again, folded from its STATE messages.

Three kinds exist: of one stream, of all streams together (GLOBAL), and the oldest one, a plain object (LEGACY).
"""

from __future__ import annotations

from typing import Any

import orjson

from connectors.airbyte.errors import SourceFailedError

__all__ = ["State"]

LONGEST = 900_000  # bytes of JSON: the ledger's record takes no more


class State:
    """The newest state of a connection; `value` is what the source is started with, None before the first."""

    def __init__(self, text: str | None = None) -> None:
        self.value: Any = None if text is None else orjson.loads(text)

    def take(self, state: dict[str, Any]) -> None:
        """Fold one STATE message's content in."""
        kind = state.get("type", "LEGACY")
        # Its counts of records are of this run alone.
        state = {
            name: value for name, value in state.items() if name not in ("sourceStats", "destinationStats")
        }
        if kind == "LEGACY":
            self.value = state.get("data", {})
        elif kind == "GLOBAL":
            self.value = [state]
        else:
            who = _who(state)
            kept = self.value if isinstance(self.value, list) else []
            self.value = [each for each in kept if _who(each) != who] + [state]

    def text(self) -> str | None:
        """Return it as JSON. Raises SourceFailedError when it is larger than the ledger takes."""
        if self.value is None:
            return None
        encoded = orjson.dumps(self.value)
        if len(encoded) > LONGEST:
            raise SourceFailedError(
                f"the source's state is {len(encoded):,} bytes, and at most {LONGEST:,} are kept",
                remedy="Read fewer partitions of the stream at once, if the source lets you choose.",
            )
        return encoded.decode()


def _who(state: dict[str, Any]) -> Any:
    return (state.get("stream") or {}).get("stream_descriptor")
