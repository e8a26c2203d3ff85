"""Airbyte sources: what is mapped, what is told, and that a killed run leaves neither gap nor repeat."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from recount import committed_ids, log_ends
from typer.testing import CliRunner

from connectors.airbyte.errors import (
    NotASourceError,
    SourceConfigError,
    SourceFailedError,
    SourceUnavailableError,
)
from connectors.airbyte.source import Source
from connectors.airbyte.state import LONGEST, State
from connectors.airbyte.sync import CommitAt, SyncSummary, preview_stream, sync_stream
from connectors.connections import UnknownConnectionError, connections, entry_id, forget
from connectors.ledger import read_ledger
from connectors.mapping import ColumnMapping, MappingError
from dealeriq.cli.connect import app
from dealeriq.settings import Settings

COMMAND = [sys.executable, str(Path(__file__).with_name("airbyte_source.py"))]
MAPPING = ColumnMapping.of(
    [
        "order_id=id",
        "dealer_id=shop.code",
        "product_id=sku",
        "quantity=pieces",
        "amount=paid",
        "event_time=sold_at",
    ],
    ["line=0", "category=GROCERY"],
)
# Runs in a process of its own, to be killed.
_SYNC = """
import json, sys
from pathlib import Path
from connectors.airbyte.source import Source
from connectors.airbyte.sync import sync_stream
from connectors.settings import KafkaSettings, RegistrySettings
sys.path.insert(0, sys.argv[5])
from test_airbyte import COMMAND, MAPPING
with Source("sales", COMMAND, json.loads(sys.argv[3])) as source:
    sync_stream(
        KafkaSettings(bootstrap=sys.argv[1]), RegistrySettings(url=sys.argv[2]), source, "sales", "orders",
        MAPPING, name=sys.argv[4], rejects=Path(sys.argv[6]),
        progress=lambda summary: print(summary.resumed_at + summary.rows_read, flush=True),
    )
"""


def source(**config: Any) -> Source:
    return Source("sales", COMMAND, config)


def test_a_preview_shows_nested_columns_as_events_and_every_problem() -> None:
    with source(rows=20, bad=[3, 4]) as opened:
        found = preview_stream(opened, "sales", "orders", MAPPING, rows=10)
    assert (found.rows, found.good) == (10, 8)
    assert found.events[1]["dealer_id"] == "d1"
    assert found.events[1]["event_time"] == 1_488_362_400_000
    ((kind, count),) = found.problems.items()
    assert count == 2
    assert "quantity" in kind
    assert [each["line"] for each in found.examples[kind]] == [4, 5]


def test_lists_are_json_and_the_time_of_emission_is_a_column() -> None:
    mapping = ColumnMapping.of(
        [
            "order_id=id",
            "dealer_id=shop.code",
            "product_id=shop.tags",
            "quantity=pieces",
            "amount=paid",
            "event_time=_emitted_at",
        ],
        ["line=0", "category=X"],
    )
    with source(rows=1) as opened:
        (event,) = preview_stream(opened, "sales", "orders", mapping).events
    assert (event["product_id"], event["event_time"]) == ('["a",1]', 1_700_000_000_000)


@pytest.mark.parametrize(
    ("config", "stream", "mapping", "error", "words"),
    [
        ({"rows": "x"}, "sales", MAPPING, SourceConfigError, "sales: rows must be a number"),
        ({"rows": 1}, "returns", MAPPING, SourceConfigError, "no stream 'returns'; it offers sales"),
        ({"rows": 1}, "sales", ColumnMapping.of(["amount=price"]), MappingError, "no column 'price'"),
        ({"silent": True}, "sales", MAPPING, NotASourceError, "status 3 at `check`: I am no source"),
        (
            {"rows": 9, "fail_at": 5, "fail_message": "the shop is shut", "failure_type": "transient_error"},
            "sales",
            MAPPING,
            SourceUnavailableError,
            "sales: the shop is shut",
        ),
    ],
)
def test_what_is_wrong_is_told_in_the_sources_own_words(
    config: dict[str, Any], stream: str, mapping: ColumnMapping, error: type[Exception], words: str
) -> None:
    with source(**config) as opened, pytest.raises(error) as caught:
        preview_stream(opened, stream, "orders", mapping)
    assert words in str(caught.value)


def test_a_command_that_is_not_there_is_no_source() -> None:
    with Source("gone", ["/nowhere/source"], {}) as opened, pytest.raises(NotASourceError):
        opened.check()


def test_states_fold_by_stream_and_a_large_one_is_refused() -> None:
    def of(name: str, at: int) -> dict[str, Any]:
        return {
            "type": "STREAM",
            "stream": {"stream_descriptor": {"name": name}, "stream_state": {"at": at}},
            "sourceStats": {"recordCount": 3},
        }

    state = State()
    assert state.text() is None
    for name, at in (("a", 1), ("b", 1), ("a", 2)):
        state.take(of(name, at))
    again = State(state.text())
    found = {each["stream"]["stream_descriptor"]["name"]: each for each in again.value}
    assert found["a"]["stream"]["stream_state"] == {"at": 2}
    assert found["b"]["stream"]["stream_state"] == {"at": 1}
    assert "sourceStats" not in found["a"]
    again.take({"data": {"all": "x" * LONGEST}})
    with pytest.raises(SourceFailedError, match="bytes"):
        again.text()


def test_the_command_line_shows_streams_and_first_events(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"rows": 3}))
    base = ["airbyte", "--source", " ".join(COMMAND), "--config", str(config)]
    listed = CliRunner().invoke(app, [*base, "--streams", "--json"])
    assert json.loads(listed.stdout)[0]["columns"][0] == "shop.code"
    maps = [f"--map={f}={c}" for f, c in MAPPING.columns.items()]
    sets = [f"--set={f}={c}" for f, c in MAPPING.constants.items()]
    arguments = [*base, "--stream", "sales", "--topic", "orders", "--dry-run", "--json", *maps, *sets]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.stderr
    assert json.loads(shown.stdout)["good"] == 3


def synced(
    stack: Settings, name: str, folder: Path, commit_at: CommitAt = "state", **config: Any
) -> SyncSummary:
    with source(**config) as opened:
        return sync_stream(
            stack.kafka, stack.registry, opened, "sales", "orders", MAPPING, name=name,
            rejects=folder / "rejects", commit_at=commit_at,
        )  # fmt: skip


@pytest.mark.services
def test_a_killed_run_goes_on_with_neither_gap_nor_repeat(stack: Settings, tmp_path: Path) -> None:
    before = log_ends(stack, "orders")
    name = f"sales-{time.time_ns()}"
    config = {"rows": 3_000, "prefix": name, "state_every": 10, "pause_s": 0.01, "bad": [5, 1_500]}
    rejects = tmp_path / "rejects"
    arguments = [
        sys.executable, "-c", _SYNC, str(stack.kafka.bootstrap), str(stack.registry.url), json.dumps(config),
        name, str(Path(__file__).parent), str(rejects),
    ]  # fmt: skip
    for _ in range(2):
        with subprocess.Popen(arguments, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            assert 0 < int(child.stdout.readline()) < 3_000
            os.kill(child.pid, signal.SIGKILL)
    summary = synced(stack, name, tmp_path, **config)
    assert 0 < summary.resumed_at < 3_000
    assert summary.resumed_at + summary.rows_read == 3_000
    found = committed_ids(stack, "orders", before)
    assert len(found) == 2_998
    assert set(found.values()) == {1}
    lines = [json.loads(line)["line"] for line in rejects.read_bytes().splitlines()]
    assert lines == [6, 1_501]
    # Nothing is new: the source is started with its last state and has nothing to say.
    again = synced(stack, name, tmp_path, **config)
    assert (again.rows_read, again.resumed_at) == (0, 3_000)


@pytest.mark.services
@pytest.mark.parametrize("kind", ["STREAM", "GLOBAL", "LEGACY"])
def test_a_source_that_fails_keeps_what_it_confirmed(stack: Settings, tmp_path: Path, kind: str) -> None:
    before = log_ends(stack, "orders")
    name = f"fails-{kind}-{time.time_ns()}"
    config = {"rows": 250, "prefix": name, "state_every": 100, "kind": kind}
    with pytest.raises(SourceFailedError, match="sales: the till is broken"):
        synced(stack, name, tmp_path, fail_at=220, fail_message="the till is broken", **config)
    assert sum(committed_ids(stack, "orders", before).values()) == 200
    assert synced(stack, name, tmp_path, **config).rows_read == 50
    found = committed_ids(stack, "orders", before)
    assert (len(found), set(found.values())) == (250, {1})


@pytest.mark.services
def test_a_commit_at_the_end_is_all_or_nothing(stack: Settings, tmp_path: Path) -> None:
    before = log_ends(stack, "orders")
    name = f"whole-{time.time_ns()}"
    config = {"rows": 300, "prefix": name}
    with pytest.raises(SourceFailedError):
        synced(stack, name, tmp_path, "end", fail_at=290, fail_message="no", **config)
    assert not committed_ids(stack, "orders", before)
    summary = synced(stack, name, tmp_path, "end", **config)
    assert (summary.rows_produced, summary.commits) == (300, 1)


@pytest.mark.services
def test_a_stream_that_is_read_whole_starts_over_and_ids_tell_the_repeat(
    stack: Settings, tmp_path: Path
) -> None:
    before = log_ends(stack, "orders")
    name = f"refresh-{time.time_ns()}"
    for _ in range(2):
        assert synced(stack, name, tmp_path, rows=30, prefix=name, modes=["full_refresh"]).rows_read == 30
    found = committed_ids(stack, "orders", before)
    assert (len(found), set(found.values())) == (30, {2})


@pytest.mark.services
def test_connections_are_listed_and_forgotten(stack: Settings, tmp_path: Path) -> None:
    name = f"listed-{time.time_ns()}"
    synced(stack, name, tmp_path, rows=10, prefix=name)
    (found,) = [each for each in connections(stack.kafka, stack.registry) if each.name == name]
    assert (found.source, found.topic, found.rows_produced, found.finished) == (
        "sales.sales", "orders", 10, True,
    )  # fmt: skip
    assert read_ledger(stack.kafka, stack.registry)[entry_id(name)].state == found.state
    forget(stack.kafka, stack.registry, name)
    assert synced(stack, name, tmp_path, rows=10, prefix=name).rows_read == 10
    with pytest.raises(UnknownConnectionError):
        forget(stack.kafka, stack.registry, f"never-{name}")
