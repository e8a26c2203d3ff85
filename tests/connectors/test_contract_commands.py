from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from connectors.kafka import ensure_topics, producer
from dealeriq.cli import dlq, schema, topics


def run(app, arguments):
    """The command's result; one that failed raises what ended it."""
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


def test_schema_check_and_describe_speak_json():
    assert json.loads(run(schema.app, ["check", "--json"]).stdout)["ok"] is True
    assert json.loads(run(topics.app, ["describe", "orders", "--json"]).stdout)["key"] == ["dealer_id"]
    assert "orders" in run(topics.app, ["ls", "--declared"]).stdout


@pytest.mark.services
def test_a_redrive_shows_its_plan_before_it_acts(stack, monkeypatch):
    monkeypatch.setattr("dealeriq.settings.load", lambda: stack)
    ensure_topics(stack.kafka)
    writer = producer(stack.kafka)
    writer.produce("promotions.dlq", b"x", headers=[("dlq_error", b"bad bytes")])
    writer.flush(20)
    plan = json.loads(run(dlq.app, ["redrive", "promotions", "--json"]).stdout)
    assert plan == {"topic": "promotions", "would_send": 1, "reasons": {"bad bytes": 1}}
    assert json.loads(run(dlq.app, ["redrive", "promotions", "--execute", "--json"]).stdout)["sent"] == 1
    assert json.loads(run(dlq.app, ["ls", "--json"]).stdout)
    assert json.loads(run(dlq.app, ["show", "promotions", "--json"]).stdout)[0]["value_hex"] == "78"
    found = {each["topic"]: each for each in json.loads(run(topics.app, ["ls", "--json"]).stdout)}
    assert found["orders"]["found"] == found["orders"]["partitions"]
