"""`dealeriq features`, against the real store."""

import json
from pathlib import Path
from typing import Any

import pytest
import redis
from typer.testing import CliRunner

from dealeriq.cli.features import FeatureRequestError, app
from dealeriq.settings import Settings
from features.plan import PlanError, load
from features.writer import FeatureWriter
from tests.features.test_merge import NOW, fold

PLAN = load()


@pytest.fixture
def run(stack: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("DEALERIQ_REDIS__URL", stack.redis.address)
    monkeypatch.setenv("DEALERIQ_DATA_DIR", str(tmp_path))

    def invoke(*arguments: str) -> str:
        result = CliRunner().invoke(app, arguments)
        if result.exception is not None:
            raise result.exception
        return result.stdout

    return invoke


def test_plan_has_nothing_to_do_and_apply_leaves_a_store_that_the_sdk_opens(run: Any, tmp_path: Path) -> None:
    assert json.loads(run("plan", "--json")) == {"changes": [], "files": []}
    answer = json.loads(run("apply", "--json"))
    assert (answer["written"], answer["backfill"]) == ([], {})
    assert Path(answer["feast"]) == tmp_path / "feast" / "feature_store.yaml"
    assert {"dealer", "dealer_orders_now"} <= set(answer["applied"])

    from features.store import open_store

    names = [
        each.name for each in open_store(tmp_path / "feast" / "feature_store.yaml").list_feature_services()
    ]
    assert sorted(names) == sorted(PLAN.services)


def test_the_project_of_the_settings_is_feasts_and_what_is_read(
    run: Any, stack: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEALERIQ_FEATURES__PROJECT", "elsewhere")
    config = Path(json.loads(run("apply", "--json"))["feast"])
    assert json.loads(config.read_text())["project"] == "elsewhere"
    view = PLAN.views["dealer_feedback"]
    client = redis.Redis.from_url(stack.redis.address)
    FeatureWriter(client, view, "elsewhere").write({("project",): fold([(NOW, 3)])}, {})
    arguments = ("get", "--entity", "dealer_id=project", "--service", view.name, "--at", str(NOW), "--json")
    assert json.loads(run(*arguments))["features"][view.name]["count_1h"] == 1
    monkeypatch.delenv("DEALERIQ_FEATURES__PROJECT")
    assert json.loads(run(*arguments))["statuses"][view.name]["count_1h"] == "UNKNOWN"


def test_get_reads_a_moment(run: Any, stack: Settings) -> None:
    view = PLAN.views["dealer_feedback"]
    writer = FeatureWriter(redis.Redis.from_url(stack.redis.address), view, PLAN.project)
    writer.write({("cli",): fold([(NOW, 3), (NOW - 60_000, 5)])}, {})
    arguments = ("get", "--entity", "dealer_id=cli", "--service", "dealer", "--at")
    answer = json.loads(run(*arguments, str(NOW), "--json"))
    assert answer["features"]["dealer_feedback"]["value_mean_1h"] == 4.0
    assert answer["statuses"]["dealer_orders"]["count_1h"] == "UNKNOWN"
    assert answer["event_times"]["dealer_feedback"] == NOW
    text = run(*arguments, "2023-11-14T22:13:20Z")
    (line,) = [each for each in text.splitlines() if each.startswith("dealer_feedback.value_mean_1h ")]
    assert line.split()[1:] == ["4.0000", "present"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("--entity", "dealer_id"), FeatureRequestError, "key=value"),
        (("--entity", "product_id=1"), FeatureRequestError, "dealer needs exactly dealer_id"),
        (("--entity", "dealer_id=1", "--at", "2017"), FeatureRequestError, "outside 2000-01-01"),
        (("--entity", "dealer_id=1", "--at", "noon"), FeatureRequestError, "ISO 8601"),
        (("--entity", "dealer_id=1", "--service", "x"), PlanError, "there are dealer, dealer_category"),
    ],
)
def test_what_cannot_be_read_is_said(run: Any, arguments: tuple[str, ...], error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        run("get", *arguments)


def test_ls_lists_services_views_and_features(run: Any) -> None:
    text = run("ls")
    assert "service dealer: dealer_orders, dealer_chats, dealer_feedback" in text
    assert run("ls", "product_demand").split() == [
        f"product_demand.{each.name}" for each in PLAN.views["product_demand"].features
    ]
    assert len(json.loads(run("ls", "--json"))["views"]) == len(PLAN.views)
