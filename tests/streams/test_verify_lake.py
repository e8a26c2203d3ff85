"""The lake against real topics: clean as the view writes it, every change by hand named, and repaired alone."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from deltalake import CommitProperties, Transaction, write_deltalake

from connectors.kafka import ensure_topics, producer
from connectors.lake import LakeTable, Rows, app_id, arrow_schema, open_delta, positions
from connectors.lake.current import refresh
from connectors.registry import Registry
from connectors.whole import WholeTopic
from dealeriq.settings import Settings
from schemas.codec import Encoder
from streams.verify.broker import Broker
from streams.verify.lake import LakeCheck, _check_rows, verify_table
from streams.verify.log import TopicReader
from streams.verify.repair_lake import lake_repairs

pytestmark = [pytest.mark.services, pytest.mark.timeout(420)]

NOON = 1_700_000_000_000
TOPICS = ("promotions", "documents")  # promotions are events with an id, documents have a latest row a key


class Filled:
    """A lake that holds the two topics as they are now, written as the lake view writes it."""

    def __init__(self, settings: Settings, root: Path) -> None:
        self.root, self.registry, self.broker = root, Registry(settings.registry), Broker(settings.kafka)
        self.kafka = settings.kafka
        self._produce()
        for topic in TOPICS:
            messages = self.messages(topic)
            half = len(messages) // 2
            table = LakeTable(root, topic)
            for part, ends in ((messages[:half], {}), (messages[half:], self.broker.ends(topic))):
                # Behind the last record may lie the end of a transaction.
                upto = {each.partition(): each.offset() + 1 for each in part} | ends
                table.append(Rows(topic, self.registry.schema).of(part), upto)
                refresh(root, topic)

    def _produce(self) -> None:
        ensure_topics(self.kafka, TOPICS)
        ids = self.registry.register_all(TOPICS)
        writer = producer(self.kafka)
        promotions = Encoder("promotions", ids["promotions-value"])
        documents = Encoder("documents", ids["documents-value"])
        for number in range(400):
            record = {
                "promotion_id": f"vl-{number % 380}", "product_id": f"p{number % 7}",
                "dealer_id": f"d{number % 5}", "display": None, "mailer": "A", "week": number % 50,
                "start_time": None, "end_time": None, "event_time": NOON + number,
            }  # fmt: skip
            writer.produce("promotions", promotions.encode(record), key=f"d{number % 5}")
        writer.produce("promotions", b"\x00\x00\x00\x00\x63no avro", key="d1")
        writer.produce("promotions", None, key="d2")
        writer.produce("promotions", promotions.encode(record | {"event_time": 5}), key="d2")  # breaks a bound
        for number in range(120):
            key = f"vl-{number % 20}"
            value = documents.encode(
                {
                    "document_id": key, "title": f"t{number}", "text": "ä" * (number % 9), "kind": "manual",
                    "product_id": None, "dealer_id": "d1", "deleted": False,
                    "event_time": NOON + (number * 37) % 120,
                }
            )  # fmt: skip
            writer.produce("documents", value if number % 11 else None, key=key)
        assert writer.flush(120) == 0

    def messages(self, topic: str) -> list[Any]:
        whole = WholeTopic(self.kafka, topic, "dealeriq-test-verify-lake")
        found = sorted(whole.records(), key=lambda each: (each.partition(), each.offset()))
        whole.close()
        return found

    def check(self, topic: str, sampled: bool = False) -> LakeCheck:
        return verify_table(self.root, self.broker, self.registry, topic, sampled=sampled)


@pytest.fixture
def lake(stack: Settings, tmp_path: Path) -> Filled:
    return Filled(stack, tmp_path / "lake")


def kinds(check: LakeCheck) -> list[tuple[str, str]]:
    return sorted((each.kind, each.position) for each in check.findings)


def test_every_change_by_hand_is_named_and_repaired_alone(lake: Filled) -> None:
    for topic in TOPICS:
        for sampled in (False, True):
            check = lake.check(topic, sampled)
            assert check.findings == []
            assert check.rows == check.records > 0
            assert check.fields > 0
            assert check.behind == 0
    topic = "promotions"
    table = open_delta(lake.root, topic)
    rows = table.to_pyarrow_table().sort_by([("_partition", "ascending"), ("_offset", "ascending")])
    places = [(p, o) for p, o in zip(rows["_partition"].to_pylist(), rows["_offset"].to_pylist(), strict=True)]
    dropped, twice, changed, field = places[3], places[20], places[40], places[60]
    before = dict(zip(places, rows.to_pylist(), strict=True))

    def one(place: tuple[int, int]) -> str:
        return f"_partition = {place[0]} AND _offset = {place[1]}"

    table.delete(one(dropped))
    write_deltalake(table, rows.slice(20, 1), mode="append")
    table.update(predicate=one(changed), updates={"_crc": "12345"})
    table.update(predicate=one(field), updates={"product_id": "'someone else'"})
    end = max(o for p, o in places if p == places[0][0]) + 1_000
    column = rows.schema.get_field_index("_offset")
    stranger = rows.slice(0, 1).set_column(column, "_offset", pa.array([end], pa.int64()))
    write_deltalake(open_delta(lake.root, topic), stranger, mode="append")

    def at(place: tuple[int, int]) -> str:
        return f"{topic}[{place[0]}]@{place[1]}"

    check = lake.check(topic)
    found = [each for each in kinds(check) if each[0] != "current"]  # which then is not what the table gives
    assert found == sorted(
        [
            ("missing-record", at(dropped)), ("duplicate-record", at(twice)), ("changed-record", at(changed)),
            ("changed-record", at(field)), ("extra-record", at((places[0][0], end))),
        ]
    )  # fmt: skip
    assert set(repaired(lake, check)) == {"write"}
    check = lake.check(topic)
    assert check.findings == [], kinds(check)
    after = open_delta(lake.root, topic).to_pyarrow_table().to_pylist()
    assert len(after) == len(places)
    assert {(row["_partition"], row["_offset"]): row for row in after} == before


def repaired(lake: Filled, check: LakeCheck) -> list[str]:
    """Do all that repair would; return the actions."""
    done = []
    for action, _, act in lake_repairs(lake.root, lake.broker, lake.registry, check):
        assert act()
        done.append(action)
    return done


def test_a_position_that_was_moved_is_named_and_moved_back(lake: Filled) -> None:
    topic = "promotions"
    before = positions(lake.root, topic)
    partition = max(before, key=lambda each: before[each])
    for moved in (before[partition] - 3, before[partition] + 5):
        nothing = arrow_schema(topic).empty_table()
        move = CommitProperties(app_transactions=[Transaction(app_id(topic, partition), moved)])
        write_deltalake(open_delta(lake.root, topic), nothing, mode="append", commit_properties=move)
        assert positions(lake.root, topic)[partition] == moved
        check = lake.check(topic)
        (finding,) = check.findings
        assert (finding.kind, finding.feature) == ("position", f"partition {partition}")
        assert (finding.expected, finding.found) == (before[partition], moved)
        assert repaired(lake, check) == ["move"]
        assert positions(lake.root, topic) == before
        assert lake.check(topic).findings == []


def test_a_sample_has_the_same_events_from_the_lake_as_from_the_topic(lake: Filled, tmp_path: Path) -> None:
    topic = "promotions"
    messages = lake.messages(topic)
    half = messages[: len(messages) // 2]
    behind = LakeTable(tmp_path / "behind", topic)  # a lake that has not come to the end
    behind.append(
        Rows(topic, lake.registry.schema).of(half), {each.partition(): each.offset() + 1 for each in half}
    )

    def some(rows: pl.DataFrame) -> Any:
        return np.array([each in ("d1", "d2") for each in rows["dealer_id"]], bool)

    ends = lake.broker.ends(topic)
    found = []
    for root in (None, lake.root, tmp_path / "behind", tmp_path / "nowhere"):
        reader = TopicReader(lake.broker, lake.registry, topic, ["product_id", "week"], keep=some)
        if root is not None:
            reader.begin_with(root)
            assert reader.records == {"lake": len(messages), "behind": len(half), "nowhere": 0}[root.name]
        reader.read(ends)
        assert reader.records == len(messages)
        found.append((reader.events().drop("_event"), reader.last(), reader.since_ms))
    events = found[0][0]
    assert set(events["dealer_id"]) == {"d1", "d2"}
    assert int(events["event_time"].min()) >= NOON
    for other, last, since in found[1:]:
        assert other.equals(events)
        assert (last, since) == found[0][1:]


def test_what_the_topic_compacted_away_is_no_finding(lake: Filled) -> None:
    records = pl.DataFrame({"_partition": [0], "_offset": [7], "_timestamp": [1], "_crc": [5]})
    rows = pl.concat([records.with_columns(_offset=pl.lit(at)) for at in (3, 7, 9)])
    found = {}
    for topic in TOPICS:
        check = LakeCheck(topic)
        _check_rows(check, records, rows, {0: 8})
        found[topic] = kinds(check)
    assert found["documents"] == [("extra-record", "documents[0]@9")]
    assert found["promotions"] == [("extra-record", "promotions[0]@3"), ("extra-record", "promotions[0]@9")]


def test_a_current_table_that_was_changed_is_named_and_made_anew(lake: Filled) -> None:
    whole = {topic: current(lake, topic) for topic in TOPICS}
    table = open_delta(lake.root, "documents", current=True)
    key = table.to_pyarrow_table()["_key"][0].as_py()
    table.delete(f"_key = '{key}'")
    check = lake.check("documents")
    assert [(each.kind, each.entity) for each in check.findings] == [("current", (key,))]
    table = open_delta(lake.root, "promotions", current=True)
    first = table.to_pyarrow_table().slice(0, 1)
    write_deltalake(table, first, mode="append")
    check = lake.check("promotions")
    identity = first["promotion_id"][0].as_py()
    assert [(each.kind, each.entity) for each in check.findings] == [("current", (identity,))]
    for topic in TOPICS:
        assert repaired(lake, lake.check(topic)) == ["write"]
        assert lake.check(topic).findings == []
        assert current(lake, topic) == whole[topic]


def current(lake: Filled, topic: str) -> list[dict[str, Any]]:
    rows = open_delta(lake.root, topic, current=True).to_pyarrow_table().to_pylist()
    return sorted(rows, key=lambda row: (row["_partition"], row["_offset"]))
