"""From a price elasticity to a price: what a change would do to quantity and revenue, with its interval.

The elasticity is that of `price_response`; nothing else is assumed of demand. Advice keeps to prices that were
seen (no curve reaches further than its data), and speaks only where even the bad end of the interval is a gain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import DealerIQError

__all__ = ["ASSUMED", "Advice", "Effect", "MarginError", "Response", "advise", "responses"]

ASSUMED = (
    "from prices as they were set, not from an experiment: displays and mailers went with many of them. Try a "
    "change at some dealers first"
)
"""What goes with every advice."""
_STEP = 0.01
_LEAST_GAIN = 0.005
"""A gain below half a per cent is none: a price has to be printed, too."""


class MarginError(DealerIQError):
    """A margin that no price can have."""

    remedy = "Give the gross margin as a share of the usual price: above 0, below 1."
    exit_code = 2


@dataclass(frozen=True)
class Effect:
    """A relative change with its 95 % interval: 0.1 is ten per cent more."""

    expected: float
    low: float
    high: float


@dataclass(frozen=True)
class Response:
    """How a product group's demand answers to its price.

    `elasticity` is the change of quantity in per cent for one per cent of price, with the bounds of its
    interval; `lowest` and `highest` are the prices, over the usual one, within which nine in ten were seen.
    `estimated` is false where the group's own prices hardly moved: then it is what all groups have in common.
    """

    group: str
    elasticity: float
    low: float
    high: float
    lowest: float
    highest: float
    estimated: bool


@dataclass(frozen=True)
class Advice:
    """What to do with a group's price, and what that is expected to do.

    `change` is relative to the usual price; 0 is to keep it, and `why` says the reason. `gain` is of what was
    maximised: revenue, or gross profit where a margin was given.
    """

    response: Response
    change: float
    quantity: Effect
    revenue: Effect
    gain: Effect
    why: str


def responses(session: Any) -> list[Response]:
    """Return every group that a served `price_response` knows, by name; `session` is a `runtime.Session`."""
    told = session.description
    at = next(i for i, each in enumerate(told.inputs) if each.kind == "code")
    groups = told.inputs[at].values
    vectors = np.full((len(groups), len(told.inputs)), np.nan, np.float32)
    vectors[:, at] = np.arange(len(groups))
    answers = session.run(vectors).astype(np.float64)
    place: Mapping[str, int] = {name: i for i, name in enumerate(told.outputs)}

    def of(name: str) -> NDArray[np.float64]:
        return np.asarray(answers[:, place[name]])

    return [
        Response(group, float(middle), float(low), float(high), float(least), float(most), bool(known > 0.5))
        for group, middle, low, high, least, most, known in zip(
            groups, of("elasticity"), of("elasticity_low"), of("elasticity_high"), of("lowest_price"),
            of("highest_price"), of("estimated"), strict=True,
        )
    ]  # fmt: skip


def advise(response: Response, margin: float | None = None, most: float = 0.2) -> Advice:
    """Return the price within the range that was seen at which most is earned.

    Args:
        response: the group's.
        margin: the gross margin at the usual price, a share of it: gross profit is maximised, else revenue.
        most: the largest change that is advised, as a share of the usual price.

    Raises MarginError.
    """
    if margin is not None and not 0 < margin < 1:
        raise MarginError(f"a margin of {margin:g} is none that a price can have")
    lowest, highest = max(response.lowest, 1 - most), min(response.highest, 1 + most)
    ratios = np.arange(np.ceil(lowest / _STEP - 1e-9), np.floor(highest / _STEP + 1e-9) + 1) * _STEP
    ratios = np.union1d(ratios, [1.0])
    best = float(ratios[int(_earned(ratios, response.elasticity, margin).argmax())])
    gain = _effect(best, response, margin)
    if not response.estimated:
        best, why = 1.0, "its own prices hardly moved: nothing is known of what another would do"
    elif best == 1.0:
        why = "the usual price earns most within the prices that were seen"
    elif gain.low <= 0 or gain.expected < _LEAST_GAIN:
        best, why = 1.0, f"{best - 1:+.0%} may as well lose: {_told(gain)}"
    else:
        what = "revenue" if margin is None else "gross profit"
        why = f"{what} {_told(gain)}"
    quantity = _bounds([best**e for e in (response.elasticity, response.low, response.high)])
    return Advice(
        response,
        round(best - 1, 4),
        quantity,
        _effect(best, response, None),
        _effect(best, response, margin),
        why,
    )


def _earned(ratio: Any, elasticity: float, margin: float | None) -> Any:
    """Revenue, or gross profit, at a price over what the usual price earns."""
    sold = ratio**elasticity
    return ratio * sold if margin is None else (ratio - (1 - margin)) * sold / margin


def _effect(ratio: float, response: Response, margin: float | None) -> Effect:
    return _bounds([_earned(ratio, e, margin) for e in (response.elasticity, response.low, response.high)])


def _bounds(values: list[float]) -> Effect:
    """The effect of the elasticity, and of the ends of its interval; what is earned moves one way with it."""
    changes = [float(each) - 1 for each in values]
    return Effect(changes[0], min(changes), max(changes))


def _told(effect: Effect) -> str:
    return f"{effect.expected:+.1%} ({effect.low:+.1%} to {effect.high:+.1%})"
