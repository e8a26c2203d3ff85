"""`dealeriq prices`: how demand answers to prices, and which change is worth it."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.errors import DealerIQError

if TYPE_CHECKING:
    from dealeriq.settings import Settings
    from models.pricing import Advice
    from models.runtime import Session

__all__ = ["NoPricesError", "command"]

_MODEL, _VIEW = "price_response", "dealer_category_orders"


class NoPricesError(DealerIQError):
    """Nothing is known of prices, or of the one who was asked for."""

    remedy = "Train it with `dealeriq models train price_response`; `dealeriq prices` lists the groups."
    exit_code = 6


@dataclass(frozen=True)
class _Sold:
    """What a dealer sold of a group in 30 days."""

    amount: float
    quantity: float


def command(
    whom: Annotated[
        str | None, typer.Argument(help="A product group, or a dealer; default: every group.")
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(help="Gross margin at the usual price, as a share: earn profit, not revenue."),
    ] = None,
    most: Annotated[float, typer.Option(min=0, max=1, help="Largest change to advise, as a share.")] = 0.2,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Tell the price elasticity of product groups, and the price change that earns most, with 95 % intervals.

    For a dealer, what the change would do to its own sales of the last 30 days.

    Example: dealeriq prices 367 --margin 0.25
    """
    from dealeriq.settings import load
    from models.pricing import ASSUMED, advise, responses

    settings = load()
    session = _champion(settings)
    found = [advise(each, margin, most) for each in responses(session)]
    sold: dict[str, _Sold] = {}
    if whom is not None and whom not in {each.response.group for each in found}:
        sold = _sold(settings, whom, [each.response.group for each in found])
        if not sold:
            raise NoPricesError(f"{whom} is neither a product group nor a dealer that sold any in 90 days")
        found = [each for each in found if each.response.group in sold]
    elif whom is not None:
        found = [each for each in found if each.response.group == whom]
    if as_json:
        rows = [{**asdict(each), "sold_30d": _plain(sold.get(each.response.group))} for each in found]
        typer.echo(
            json.dumps({"version": session.version, "margin": margin, "assumed": ASSUMED, "groups": rows})
        )
        return
    for each in sorted(found, key=lambda each: -each.gain.expected * _weight(sold, each)):
        typer.echo(_line(each, sold.get(each.response.group)))
    print(f"dealeriq: {_MODEL} {session.version}, {ASSUMED}", file=sys.stderr)


def _champion(settings: Settings) -> Session:
    from models.lifecycle_log import LifecycleLog
    from models.runtime import open_registered

    with LifecycleLog(settings.kafka, settings.registry) as log:
        log.catch_up()
        state = log.registry.state(_MODEL)
    if state.champion is None:
        raise NoPricesError(f"{_MODEL} has no champion")
    return open_registered(state, state.champion, settings.runtime)


def _sold(settings: Settings, dealer: str, groups: list[str]) -> dict[str, _Sold]:
    """What the online store holds of a dealer's groups, at the newest event of each."""
    import numpy as np

    from connectors.redis import connect
    from features.latest import LatestReader
    from features.plan import load as load_plan

    reader = LatestReader(connect(settings.redis), load_plan(project=settings.features.project))
    keys = {"dealer_id": [dealer] * len(groups), "category": groups}
    found = reader.read({_VIEW: ("amount_sum_30d", "quantity_sum_30d")}, keys, int(time.time() * 1000))
    amounts, quantities = (np.where(np.isnan(each), 0.0, each).tolist() for each in found.columns.values())
    rows = zip(groups, found.known.tolist(), amounts, quantities, strict=True)
    return {group: _Sold(amount, quantity) for group, known, amount, quantity in rows if known}


def _weight(sold: dict[str, _Sold], advice: Advice) -> float:
    mine = sold.get(advice.response.group)
    return 1.0 if mine is None else mine.amount


def _plain(sold: _Sold | None) -> dict[str, Any] | None:
    return None if sold is None else asdict(sold)


def _line(advice: Advice, sold: _Sold | None) -> str:
    told = advice.response
    known = f"{told.elasticity:+.2f} ({told.low:+.2f} to {told.high:+.2f})" if told.estimated else "unknown"
    words = f"{advice.change:+.0%}: {advice.why}" if advice.change else f"keep: {advice.why}"
    if sold is not None and advice.change:
        money = [
            sold.amount * each for each in (advice.revenue.expected, advice.revenue.low, advice.revenue.high)
        ]
        words += f"; of {sold.amount:,.2f} in 30 days {money[0]:+,.2f} ({money[1]:+,.2f} to {money[2]:+,.2f})"
    return f"{told.group:<20} {known:<26} {words}"
