"""Prices: elasticities that were put in come out, too little variation is refused, advice keeps to its data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from features.plan import load
from models.pricing import MarginError, Response, advise, responses
from models.runtime import Session
from models.specs import spec
from models.specs.price_response import PriceResponseSpec
from models.training import run as training
from models.training.price_response import Observed, enough, pooled, slopes
from models.training.run import Job, Result
from models.training.sets import NotEnoughDataError, TrainingSet, build
from tests.models.prices import DAY, ELASTICITIES, MONDAY, STEADY, write_carried, write_prices
from tests.models.served import made


@pytest.fixture(scope="module")
def priced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("priced")
    write_prices(root)
    return root


@pytest.fixture(scope="module")
def data(priced: Path) -> TrainingSet:
    return build(spec("price_response"), load(), priced)


def job_of(lake: Path, folder: Path) -> Job:
    away = {"url": "http://127.0.0.1:9", "timeout_s": 1}
    return Job("price_response", str(lake), str(folder / "models"), str(folder), "request-prices", mlflow=away)


def refusals(found: Result) -> list[str]:
    """The gates' reasons, but for the latency, which on a machine of tests is that of its other tests."""
    return [each for each in found.verdict["reasons"] if "p99" not in each]


def test_elasticities_that_were_put_in_come_out(data: TrainingSet, priced: Path, tmp_path: Path) -> None:
    found = made("price_response", priced, tmp_path, data)
    assert found.metrics["deviance"] < found.baseline["deviance"]
    known = {each.group: each for each in responses(Session(Path(found.folder)))}
    for group, wanted in ELASTICITIES.items():
        assert known[group].estimated
        assert known[group].low - 0.2 < wanted < known[group].high + 0.2
        assert abs(known[group].elasticity - wanted) < 0.4
        assert known[group].lowest < 0.85
    assert not known[STEADY].estimated
    assert advise(known[STEADY]).change == 0
    assert advise(known["GROCERY"]).change < 0 < advise(known["PRODUCE"]).change


def test_rows_are_what_could_be_seen(data: TrainingSet, priced: Path) -> None:
    """A row's price is of the lines before it, its outcome of those after; both by another way than SQL."""
    from models.training.events import Stream

    with Stream(priced) as stream:
        lines = stream.events("orders", ["product_id", "quantity", "amount"]).to_pylist()
    for at in np.random.default_rng(0).choice(len(data), 25, replace=False):
        product, time = data.key("product_id")[at], int(data.time[at])
        assert (time - MONDAY) % (7 * DAY) == DAY
        mine = [each for each in lines if each["product_id"] == product]
        first = [each for each in mine if time - DAY <= each["event_time"] < time]
        price = sum(each["amount"] for each in first) / sum(each["quantity"] for each in first)
        assert data.column("price")[at] == pytest.approx(price, rel=1e-6)
        begin = time - DAY
        before = [each for each in mine if begin - 13 * 7 * DAY <= each["event_time"] < begin]
        weeks = min(13, (begin - (mine[0]["event_time"] - MONDAY) // (7 * DAY) * 7 * DAY - MONDAY) // (7 * DAY))
        usual = sum(each["quantity"] for each in before) / weeks * 6 / 7
        sold = sum(each["quantity"] for each in mine if time < each["event_time"] <= time + 6 * DAY)
        assert data.y[at] == pytest.approx(sold / usual)


def test_the_fit_is_that_of_a_dense_regression() -> None:
    """Slopes against Newton's method on the full design matrix, dummies and all."""
    rng = np.random.default_rng(5)
    product, week = np.repeat(np.arange(8), 20), np.tile(np.arange(20), 8)
    group, price = product % 2, rng.choice([-0.3, -0.1, 0.0, 0.1], 160)
    mean = np.exp(0.3 * (product - 4) / 4 + 0.2 * np.sin(week) + np.array([-2.0, -0.5])[group] * price + 1)
    demand = rng.poisson(mean).astype(np.float64)
    found = slopes(Observed(demand, price, group, product, week), 2)
    design = np.column_stack(
        [price * (group == 0), price * (group == 1), np.eye(8)[product], np.eye(20)[week][:, 1:]]
    )
    beta = np.zeros(design.shape[1])
    for _ in range(50):
        expected = np.exp(design @ beta)
        beta += np.linalg.solve(design.T * expected @ design, design.T @ (demand - expected))
    assert found.value == pytest.approx(beta[:2], abs=1e-5)
    assert found.rounds < 100


def test_groups_are_drawn_to_their_common_elasticity_by_their_errors() -> None:
    from models.training.price_response import Slopes

    found = Slopes(np.array([-1.0, -1.2, -6.0, np.nan]), np.array([0.1, 0.1, 3.0, np.nan]), 1)
    value, error, common, spread = pooled(found, np.array([True, True, True, False]))
    assert value[2] > -2  # one that is hardly known says little
    assert value[0] == pytest.approx(-1.0, abs=0.15)
    assert value[3] == pytest.approx(common)
    assert error[3] >= spread
    assert (error[:2] <= 0.1 + 1e-9).all()


def test_few_changes_are_not_enough() -> None:
    price = np.tile([0.0, -0.3], 100)
    rows = Observed(np.ones(200), price, np.zeros(200, int), np.arange(200) % 20, np.zeros(200, int))
    assert enough(rows, 1).tolist() == [True]
    assert enough(replace(rows, price=price / 10), 1).tolist() == [False]
    assert enough(replace(rows, product=np.zeros(200, int)), 1).tolist() == [False]


def test_a_lake_of_steady_prices_trains_nothing(data: TrainingSet) -> None:
    at = data.key("category") == STEADY
    steady = replace(data, frame=data.frame.filter(at), x=data.x[at], y=data.y[at], time=data.time[at])
    rows = np.arange(len(steady))
    with pytest.raises(NotEnoughDataError, match="price changes"):
        PriceResponseSpec().train(steady, rows[:-50], rows[-50:], 7)


GROCERY = Response("GROCERY", -2.2, -2.5, -1.9, 0.8, 1.3, True)


def test_advice_earns_most_within_what_was_seen() -> None:
    found = advise(GROCERY)
    assert found.change == pytest.approx(-0.2)
    assert found.revenue.expected == pytest.approx(0.8 ** (1 - 2.2) - 1)
    assert found.quantity.low == pytest.approx(0.8**-1.9 - 1)
    assert found.gain.low > 0
    # With a fifth of the price as margin, the best price is cost * e / (1 + e): 0.8 * 2.2 / 1.2, beyond 1.3.
    assert advise(GROCERY, 0.2, most=1).change == pytest.approx(0.3)
    assert advise(GROCERY, 0.2).change == pytest.approx(0.2)
    inner = advise(replace(GROCERY, elasticity=-4.0, low=-4.2, high=-3.8), 0.2)
    assert inner.change == pytest.approx(0.8 * 4 / 3 - 1, abs=0.006)


def test_advice_is_to_keep_where_it_may_as_well_lose() -> None:
    unsure = advise(replace(GROCERY, elasticity=-1.1, low=-1.6, high=-0.6))
    assert unsure.change == 0
    assert "may as well lose" in unsure.why
    assert unsure.quantity.expected == 0
    unknown = advise(replace(GROCERY, estimated=False))
    assert unknown.change == 0
    assert "hardly moved" in unknown.why
    assert advise(replace(GROCERY, lowest=1.0, highest=1.0)).change == 0
    with pytest.raises(MarginError, match=r"a margin of 1\.2"):
        advise(GROCERY, 1.2)


def test_the_carried_year_passes_its_gate(tmp_path: Path) -> None:
    """Real lines, from the lake to advice: demand falls with prices, and better so than not at all."""
    lake = tmp_path / "lake"
    assert write_carried(lake) > 50_000
    found = training.train(job_of(lake, tmp_path))
    assert refusals(found) == []
    assert found.verdict["against"]["naive answer"]["low"] > 0
    assert found.facts["parity_largest"] < 1e-4
    known = {each.group: each for each in responses(Session(Path(found.folder)))}
    assert known["GROCERY"].estimated
    assert known["GROCERY"].high < -1
    assert any(advise(each).change for each in known.values())
