"""docker-compose.yml and the files it mounts, held against the settings and options in code."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from dealeriq.processes import PROCESSES
from dealeriq.runtime.jars import locked
from dealeriq.runtime.services.flink import CLUSTER_OPTIONS
from dealeriq.runtime.services.kafka import BROKER_OPTIONS
from dealeriq.runtime.services.neo4j import SERVER_OPTIONS as GRAPH_OPTIONS
from dealeriq.runtime.services.redis import SERVER_OPTIONS
from dealeriq.settings import Settings, load
from dealeriq.system import GRAPH, HYBRID, IMAGES, INFERENCE, LEADS, RECOMMENDING, REINDEX, SCORING, SEARCH
from dealeriq.system import PROCESSES as STARTED

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if "DEALERIQ_DATA_DIR" in service.get("environment", {})]
# What each image listens on inside the network.
LISTENS = {
    "registry": {8080}, "redis": {6379}, "flink-jobmanager": {8081, 9249}, "flink-taskmanager": {9249},
    "http": {8000}, "feature-view": {9400}, "lake-view": {9400}, "chat-agent": {9400}, "label-view": {9400},
    "verifier": {9400}, "trainer": {9400}, "embed-agent": {9400}, "image-agent": {9400}, "search": {9400, 8010},
    "reindex-agent": {9400},
    "score-view": {9400}, "graph-view": {9400}, "recommend-view": {9400}, "hybrid-view": {9400},
    "insight-view": {9400}, "lead-view": {9400},
    "line-scorer": {9400}, "inference": {9400, 8020, 8021},
    "flink-jobs": {9400},
    "postgres": {5432}, "mlflow": {5000}, "prometheus": {9090}, "grafana": {3000}, "qdrant": {6333},
    "neo4j": {7474, 7687},
}  # fmt: skip


def settings_of(name: str) -> Settings:
    return load({key: str(value) for key, value in SERVICES[name]["environment"].items()})


def kafka_listeners() -> dict[str, int]:
    text = SERVICES["kafka"]["environment"]["KAFKA_LISTENERS"]
    return {part.split(":")[0]: int(part.rpartition(":")[2]) for part in text.split(",")}


def test_every_process_of_the_system_is_there_under_its_name() -> None:
    assert {
        *STARTED,
        *SEARCH,
        *SCORING,
        *RECOMMENDING,
        *LEADS,
        *INFERENCE,
        *GRAPH,
        *IMAGES,
        *REINDEX,
        *HYBRID,
    } <= set(OURS)
    for name in OURS:
        assert SERVICES[name]["command"] == ["python", "-m", "dealeriq.processes", name]
        assert name in PROCESSES


@pytest.mark.parametrize("name", OURS)
def test_each_setting_is_one_and_no_address_is_left_to_be_started(name: str) -> None:
    settings = settings_of(name)
    addresses = [settings.kafka.bootstrap, settings.registry.url, settings.redis.url, settings.flink.url]
    assert None not in addresses


@pytest.mark.parametrize("name", OURS)
def test_addresses_reach_services_where_they_listen(name: str) -> None:
    settings = settings_of(name)
    host, port = settings.kafka.address.split(":")
    assert host == "kafka"
    assert int(port) == kafka_listeners()["PLAINTEXT"]
    assert (
        f"PLAINTEXT://{settings.kafka.address}"
        in SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    )
    for url in (settings.registry.address, settings.redis.address, str(settings.flink.url)):
        parts = urlsplit(url)
        assert parts.hostname in SERVICES
        assert parts.port in LISTENS[parts.hostname]
    assert settings.http.port in LISTENS["http"]


@pytest.mark.parametrize("name", OURS)
def test_every_process_sees_the_same_lake(name: str) -> None:
    assert f"lake:{settings_of(name).lake.url}" in SERVICES[name]["volumes"]


def test_the_broker_has_every_option_the_code_relies_on() -> None:
    environment = SERVICES["kafka"]["environment"]
    for option, value in BROKER_OPTIONS.items():
        assert environment["KAFKA_" + option.upper().replace(".", "_")] == value, option


def test_redis_has_every_option_the_code_relies_on() -> None:
    command = SERVICES["redis"]["command"]
    given = {name.removeprefix("--"): value for name, value in zip(command[1::2], command[2::2], strict=True)}
    assert given == SERVER_OPTIONS


def test_neo4j_has_every_option_the_code_relies_on() -> None:
    environment = SERVICES["neo4j"]["environment"]
    for option, value in GRAPH_OPTIONS.items():
        assert environment["NEO4J_" + option.replace("_", "__").replace(".", "_")] == value, option


@pytest.mark.parametrize("name", OURS)
def test_every_process_is_given_the_graph(name: str) -> None:
    parts = urlsplit(settings_of(name).graph.address)
    assert parts.port in LISTENS[str(parts.hostname)]


@pytest.mark.parametrize("name", ["flink-jobmanager", "flink-taskmanager"])
def test_flink_has_every_option_the_code_relies_on(name: str) -> None:
    given = yaml.safe_load(SERVICES[name]["environment"]["FLINK_PROPERTIES"])
    assert {option: given[option] for option in CLUSTER_OPTIONS} == CLUSTER_OPTIONS
    settings = settings_of("flink-jobs")
    assert given["taskmanager.numberOfTaskSlots"] == settings.flink.slots
    assert given["execution.checkpointing.dir"] == settings.flink.checkpoint_dir
    assert given["execution.checkpointing.savepoint-dir"] == settings.flink.savepoint_dir
    assert given["jobmanager.rpc.address"] in SERVICES


def test_versions_are_those_of_the_lock_files() -> None:
    kafka = next(a for a in locked("kafka") if a.name == "kafka_2.13")
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{kafka.version}"
    (registry,) = locked("registry")
    assert SERVICES["registry"]["image"] == f"apicurio/apicurio-registry:{registry.version}"
    flink = re.search(r"^apache-flink==([0-9.]+)", (ROOT / "requirements/run.lock").read_text(), re.MULTILINE)
    assert flink is not None
    assert f"FROM flink:{flink.group(1)}-" in (ROOT / "infra/docker/Dockerfile").read_text()
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert SERVICES["http"]["image"] == f"dealeriq/dealeriq:{version}"


def test_images_are_pinned_and_published_ports_differ() -> None:
    for name, service in SERVICES.items():
        assert re.search(r":v?\d", service["image"]), name
    published = [port.split(":")[0] for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(published) == len(set(published))
    for name, service in SERVICES.items():
        for port in service.get("ports", []):
            inside = int(port.split(":")[1])
            assert inside in (LISTENS.get(name) or set(kafka_listeners().values())), (name, port)


def test_dependencies_volumes_and_mounts_exist() -> None:
    for name, service in SERVICES.items():
        for other in service.get("depends_on", []):
            assert other in SERVICES, name
            conditions = service["depends_on"]
            if isinstance(conditions, dict) and conditions[other]["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[other], other
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (ROOT / source).exists() if source.startswith("./") else source in COMPOSE["volumes"], volume


def test_prometheus_scrapes_every_process_where_it_listens() -> None:
    jobs = yaml.safe_load((ROOT / "infra/prometheus/prometheus.yml").read_text())["scrape_configs"]
    targets = {target for job in jobs for config in job["static_configs"] for target in config["targets"]}
    for target in targets:
        name, _, port = target.partition(":")
        assert int(port) in LISTENS[name], target
    assert {target.split(":")[0] for target in targets} >= {*OURS, "flink-jobmanager", "flink-taskmanager"}
    for name in OURS:
        assert int(SERVICES[name]["environment"]["DEALERIQ_METRICS_PORT"]) in LISTENS["feature-view"]
    reporter = yaml.safe_load(SERVICES["flink-taskmanager"]["environment"]["FLINK_PROPERTIES"])
    assert reporter["metrics.reporter.prom.port"] in LISTENS["flink-taskmanager"]


def test_the_dashboard_asks_for_metrics_that_exist() -> None:
    dashboard = json.loads((ROOT / "infra/grafana/dashboards/dealeriq.json").read_text())
    asked = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"dealeriq_[a-z_]+", target["expr"])
    }
    declared = (ROOT / "streams/metrics.py").read_text() + "".join(
        file.read_text() for file in sorted((ROOT / "dealeriq/http").glob("*.py"))
    )
    for name in asked:
        assert f'"{re.sub("_(total|bucket|count|sum)$", "", name)}' in declared, name
    datasource = yaml.safe_load((ROOT / "infra/grafana/provisioning/datasources/prometheus.yml").read_text())
    (prometheus,) = datasource["datasources"]
    assert {panel["datasource"]["uid"] for panel in dashboard["panels"]} == {prometheus["uid"]}
    assert urlsplit(prometheus["url"]).port in LISTENS["prometheus"]
