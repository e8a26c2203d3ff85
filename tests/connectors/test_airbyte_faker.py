"""A source from the package index, in the environment that its lock describes, through the command line."""

import json
import time
from pathlib import Path

import pytest
from recount import committed_ids, log_ends
from typer.testing import CliRunner

from dealeriq.cli.connect import app
from dealeriq.settings import Settings

pytestmark = [pytest.mark.services, pytest.mark.timeout(600)]
MAPS = ["--map=product_id=id", "--map=name=model", "--map=category=make", "--map=event_time=updated_at"]


@pytest.fixture
def faker(tmp_path: Path) -> list[str]:
    config = tmp_path / "faker.json"
    config.write_text(json.dumps({"count": 40, "seed": 7, "parallelism": 1, "always_updated": False}))
    return ["airbyte", "--source", "faker", "--config", str(config), "--json"]


def test_the_faker_source_fills_a_topic_once(
    stack: Settings, faker: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEALERIQ_KAFKA__BOOTSTRAP", stack.kafka.address)
    monkeypatch.setenv("DEALERIQ_REGISTRY__URL", stack.registry.address)
    before = log_ends(stack, "products")
    name = f"faker-{time.time_ns()}"
    arguments = [*faker, "--stream", "products", "--topic", "products", "--name", name]
    arguments += ["--rejects", str(tmp_path / "rejects"), *MAPS]
    first = CliRunner().invoke(app, arguments)
    assert first.exit_code == 0, first.output
    summary = json.loads(first.stdout)
    assert summary["rows_produced"] == 40
    assert len(committed_ids(stack, "products", before)) == 40
    # Its state says that it has nothing more to give.
    again = json.loads(CliRunner().invoke(app, arguments).stdout)
    assert (again["rows_read"], again["resumed_at"]) == (0, 40)
