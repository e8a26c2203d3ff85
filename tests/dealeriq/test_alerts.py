"""Alert rules and dashboard: what they ask for is measured, and each alert says what to do."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROMETHEUS: dict[str, Any] = yaml.safe_load((ROOT / "infra/prometheus/prometheus.yml").read_text())
GROUPS = yaml.safe_load((ROOT / "infra/prometheus/alerts.yml").read_text())["groups"]
ALERTS: list[dict[str, Any]] = [rule for group in GROUPS for rule in group["rules"]]
DASHBOARD = json.loads((ROOT / "infra/grafana/dashboards/dealeriq.json").read_text())
ASKED = [rule["expr"] for rule in ALERTS] + [
    t["expr"] for panel in DASHBOARD["panels"] for t in panel["targets"]
]
SUFFIX = re.compile(r"_(total|bucket|count|sum)$")
# What Flink itself reports of every job.
FLINK = {
    "flink_jobmanager_job_numRestarts",
    "flink_jobmanager_job_numberOfFailedCheckpoints",
    "flink_jobmanager_job_lastCheckpointDuration",
    "flink_taskmanager_job_task_operator_numRecordsInPerSecond",
}


def metrics() -> set[str]:
    return {name for expr in ASKED for name in re.findall(r"\b(?:dealeriq|flink)_\w+", expr)}


def test_every_metric_asked_for_exists_in_code() -> None:
    code = "".join(
        file.read_text("utf-8")
        for folder in ("streams", "dealeriq")
        for file in (ROOT / folder).rglob("*.*")
        if file.suffix in (".py", ".java")
    )
    unknown = set()
    for name in metrics():
        ours = name.removeprefix("flink_taskmanager_job_task_operator_")
        if name not in FLINK and f'"{SUFFIX.sub("", ours)}"' not in code and f'"{ours}"' not in code:
            unknown.add(name)
    assert unknown == set()


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert rule["annotations"]["summary"]
    assert rule["expr"].count("(") == rule["expr"].count(")")
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    headings = re.findall(r"^## (.+)$", (ROOT / page).read_text("utf-8"), re.MULTILINE)
    assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_alerts_watch_what_can_go_wrong() -> None:
    together = " ".join(rule["expr"] for rule in ALERTS)
    for name in (
        "up{",
        "lag_records",
        "freshness",
        "dead_letter",
        "errors_total",
        "process_start_time",
        "Restarts",
        "Checkpoints",
    ):
        assert name in together


def test_prometheus_loads_the_rules_and_scrapes_the_jobs_that_they_name() -> None:
    assert PROMETHEUS["rule_files"] == ["alerts.yml"]
    jobs = {job["job_name"] for job in PROMETHEUS["scrape_configs"]}
    named = {
        job
        for rule in ALERTS
        for text in re.findall(r'job=~?"([^"]+)"', rule["expr"])
        for job in text.split("|")
    }
    assert named <= jobs
    mounts = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["prometheus"]["volumes"]
    assert "./infra/prometheus:/etc/prometheus:ro" in mounts
