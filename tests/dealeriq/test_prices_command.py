"""`dealeriq prices` as a person asks it: groups, a dealer with its own sales, a margin, what is not known."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from connectors.redis import connect
from dealeriq.client import AsyncDealerIQ, DealerIQ, DealerIQClientError, Prices, RequestError
from dealeriq.settings import Settings
from features.plan import load
from features.writer import FeatureWriter
from models.lifecycle_log import LifecycleLog
from tests.features.folding import tiles_of
from tests.lake_tables import order
from tests.models.prices import STEADY, write_prices
from tests.models.served import Made, made

pytestmark = [pytest.mark.services, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    root = tmp_path_factory.mktemp("prices")
    write_prices(root / "lake")
    found = made("price_response", root / "lake", root)
    yield found
    # It stays champion in the log that tests share; without its files it scores nobody of theirs.
    shutil.rmtree(found.folder)


def ask(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dealeriq", "prices", *arguments],
        capture_output=True, text=True, timeout=300, env=os.environ | settings.environment(),
    )  # fmt: skip


def promoted(settings: Settings, model: Made) -> None:
    """Make the model champion, if it is not."""
    with LifecycleLog(settings.kafka, settings.registry) as log:
        log.catch_up()
        if log.registry.state("price_response").champion == model.version:
            return
        told = {"cause": uuid.uuid4().hex, "reason": "tests"}
        log.write(
            "price_response", model.version, "registered", "made by a test", artifact=model.folder,
            sha256=model.sha256, **told,
        )  # fmt: skip
        log.write("price_response", model.version, "champion", "made by a test", **told)


def seller(settings: Settings) -> str:
    """Return a dealer that sold five lines of groceries in the last minutes."""
    dealer, plan, now = f"dealer-{uuid.uuid4().hex}", load(), int(time.time() * 1000)
    view = plan.views["dealer_category_orders"]
    sold = [
        order(n, dealer_id=dealer, category="GROCERY", amount=10.0, quantity=2, event_time=now - 60_000 * n)
        for n in range(1, 6)
    ]
    writer = FeatureWriter(connect(settings.redis), view, plan.project)
    writer.write({(dealer, "GROCERY"): tiles_of(view, sold)}, {})
    return dealer


def test_prices_are_told_of_groups_and_of_a_dealers_own_sales(alone: Settings, model: Made) -> None:
    with LifecycleLog(alone.kafka, alone.registry) as log:
        log.catch_up()
        without = log.registry.state("price_response").champion is None
    if without:
        missing = ask(alone, "MEAT")
        assert (missing.returncode, missing.stdout) == (6, "")
        assert "no champion" in missing.stderr
    promoted(alone, model)
    dealer = seller(alone)

    every = ask(alone)
    assert every.returncode == 0, every.stderr
    assert [line.split()[0] for line in every.stdout.splitlines()].count("GROCERY") == 1
    assert len(every.stdout.splitlines()) == 4
    assert "not from an experiment" in every.stderr
    one = json.loads(ask(alone, STEADY, "--json").stdout)
    assert [each["response"]["group"] for each in one["groups"]] == [STEADY]
    assert one["groups"][0]["change"] == 0
    mine = ask(alone, dealer)
    assert mine.stdout.startswith("GROCERY")
    assert "of 50.00 in 30 days +" in mine.stdout
    dear = json.loads(ask(alone, dealer, "--margin", "0.1", "--json").stdout)
    assert dear["groups"][0]["change"] > 0  # a tenth of the price is too little to give away
    assert dear["groups"][0]["sold_30d"] == {"amount": 50.0, "quantity": 10.0}
    nobody = ask(alone, "nobody-here")
    assert (nobody.returncode, nobody.stdout) == (6, "")
    assert "neither a product group nor a dealer" in nobody.stderr
    wrong = ask(alone, "GROCERY", "--margin", "1.5")
    assert wrong.returncode == 2
    assert "a margin of 1.5" in wrong.stderr


def test_prices_are_read_over_http(alone: Settings, model: Made, tmp_path: Path) -> None:
    promoted(alone, model)
    dealer = seller(alone)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    variables = os.environ | alone.environment() | {
        "DEALERIQ_DATA_DIR": str(tmp_path), "DEALERIQ_HTTP__PORT": str(port), "DEALERIQ_METRICS_PORT": "0",
    }  # fmt: skip
    variables.pop("DEALERIQ_HTTP__URL", None)
    running = [
        subprocess.Popen([sys.executable, "-m", "dealeriq.processes", name], env=variables)
        for name in ("score-view", "http")
    ]
    try:
        with DealerIQ(f"http://127.0.0.1:{port}") as client:
            found = until(client, dealer)
            (group,) = found.groups
            assert (found.version, group.group, group.sold_30d.amount) == (model.version, "GROCERY", 50.0)
            assert group.change < 0
            assert group.revenue.low > 0
            assert "not from an experiment" in found.assumed
            told = json.loads(ask(alone, dealer, "--json").stdout)["groups"][0]
            assert told["change"] == group.change
            assert told["revenue"] == group.revenue.model_dump()
            assert client.prices(dealer, margin=0.1).groups[0].change > 0
            assert client.prices("nobody-here").groups == []
            for wrong in ({"margin": 1.5}, {"most": -1.0}, {"margin": 1.0}):
                with pytest.raises(RequestError):
                    client.prices(dealer, **wrong)

        async def asked() -> Prices:
            async with AsyncDealerIQ(f"http://127.0.0.1:{port}") as other:
                return await other.prices(dealer, most=0.05)

        assert asyncio.run(asked()).groups[0].change == -0.05
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(60)


def until(client: DealerIQ, dealer: str) -> Prices:
    """Return the dealer's prices as soon as there are any."""
    deadline = time.monotonic() + 120
    while True:
        try:
            found = client.prices(dealer)
            if found.groups:
                return found
        except DealerIQClientError:
            pass
        assert time.monotonic() < deadline, "no prices came within two minutes"
        time.sleep(0.1)
