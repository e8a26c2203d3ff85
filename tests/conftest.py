"""Real services for the tests, started once a run, when the first test asks for them."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from weaviate_server import ABSENT, WeaviateServer, binary

from dealeriq.runtime import Supervisor
from dealeriq.settings import Settings, load


@pytest.fixture(scope="session")
def supervisor() -> Iterator[Supervisor]:
    """Kafka, the registry and Redis on free ports in a folder of their own; addresses that are set are used."""
    folder = Path(tempfile.mkdtemp(prefix="dealeriq-tests-"))
    try:
        with Supervisor(load(running=False), data_dir=folder, prefer_default_ports=False) as running:
            yield running
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def stack(supervisor: Supervisor) -> Settings:
    """Settings with the addresses of Kafka, the registry and Redis. Tests share them: use names of your own."""
    return supervisor.settings


@pytest.fixture(scope="session")
def flink(supervisor: Supervisor) -> Settings:
    """`stack` with the Flink session cluster beside it."""
    supervisor.start_services("flink")
    return supervisor.settings


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings with a Kafka, a registry and a Redis of their own, for tests that look at whole topics or at
    every champion.
    """
    folder = tmp_path_factory.mktemp("alone")
    with Supervisor(load(running=False), data_dir=folder, prefer_default_ports=False) as running:
        yield running.settings


@pytest.fixture(scope="session")
def graph(supervisor: Supervisor) -> Settings:
    """`stack` with Neo4j beside it. Tests share its one database: use dealers and products of your own."""
    supervisor.start_services("neo4j")
    return supervisor.settings


@pytest.fixture(scope="session")
def weaviate_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WeaviateServer]:
    """A real Weaviate; use collections of your own. Skips where there is none."""
    if binary() is None:
        pytest.skip(ABSENT)
    running = WeaviateServer(tmp_path_factory.mktemp("weaviate"))
    yield running
    running.stop()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the fault tests last: the whole system that they start then competes with no other test."""
    faults = Path(__file__).parent / "faults"
    items.sort(key=lambda item: item.path.is_relative_to(faults))
