"""Insight rules, declared as data: they travel in a model's `model.json` to whoever evaluates them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from string import Formatter
from typing import Any

from schemas.errors import DealerIQError

__all__ = ["FIELDS", "SEVERITIES", "InsightRule", "RuleError"]

SEVERITIES = ("info", "notice", "warning", "critical")
FIELDS = ("subject_id", "dealer_id", "score", "threshold", "reasons")
"""What a rule's message may name in braces; `reasons` are the three inputs that moved the score most."""


class RuleError(DealerIQError):
    """A rule says something that cannot be evaluated."""

    remedy = "Mend the rule where its model declares it."
    exit_code = 5


@dataclass(frozen=True)
class InsightRule:
    """When a score is worth telling, and in which words.

    The rule is on from the first score beyond `threshold` until one is back behind it by `hysteresis`; it
    speaks once when it goes on, and not again for the same subject before `cool_down_ms` of event time have
    passed. `direction` is `above` or `below`; `output` names the model's output that is looked at, divided by
    the input `over` where one is named (a forecast over what is usual).
    """

    name: str
    output: str
    threshold: float
    severity: str
    message: str
    direction: str = "above"
    over: str = ""
    hysteresis: float = 0.0
    cool_down_ms: int = 86_400_000

    def __post_init__(self) -> None:
        unknown = {name for _, name, _, _ in Formatter().parse(self.message) if name} - set(FIELDS)
        for wrong, words in (
            (self.severity not in SEVERITIES, f"severity {self.severity!r} is none of {', '.join(SEVERITIES)}"),
            (self.direction not in ("above", "below"), f"direction {self.direction!r} is not above or below"),
            (self.hysteresis < 0 or self.cool_down_ms < 0, "hysteresis and cool-down are at least 0"),
            (bool(unknown), f"the message names {', '.join(sorted(unknown))}; it may name {', '.join(FIELDS)}"),
        ):
            if wrong:
                raise RuleError(f"rule {self.name}: {words}")

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> InsightRule:
        """Return the rule that a dictionary tells. Raises RuleError."""
        try:
            return cls(**data)
        except TypeError as error:
            raise RuleError(f"a rule is declared as {dict(data)!r}, which cannot be read: {error}") from error
