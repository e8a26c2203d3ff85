"""Reading tile records a batch at a time gives what fastavro gives, whatever the bytes are."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from fastavro import parse_schema
from hypothesis import given, settings
from hypothesis import strategies as st

from features.plan import load
from features.rows import Layout
from features.tile_records import TileRecords
from features.tiles import double_fields, pack, sketch_fields, tile_reader
from schemas.catalogue import topic
from schemas.codec import Decoder, Encoder, UndecodableError, plain

PLAN = load()
LONG = st.integers(-(2**63), 2**63 - 1)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "string": st.text(max_size=5),
    "int": st.integers(0, 2**31 - 1),
    "long": LONG,
    "double": st.floats(allow_nan=False) | st.just(-0.0),
    "bytes": st.binary(max_size=5).map(lambda some: some * 4),
}


def value(avro: Any) -> st.SearchStrategy[Any]:
    if isinstance(avro, list):
        return st.one_of([st.none() if each == "null" else value(each) for each in avro])
    if isinstance(avro, dict):
        return st.lists(LONG, max_size=6) if avro["type"] == "array" else value(avro["type"])
    return VALUES[avro]


def records(name: str) -> st.SearchStrategy[dict[str, Any]]:
    schema = topic(PLAN.views[name].topic).schema
    assert schema
    return st.fixed_dictionaries({each["name"]: value(each["type"]) for each in schema["fields"]})


def expected(name: str, values: list[bytes], fetch: Any) -> list[Any]:
    """What each value says by way of fastavro: (entity, tile), or None for what cannot be read."""
    view = PLAN.views[name]
    decoder, read = Decoder.of_topic(view.topic, fetch), tile_reader(view)
    found: list[Any] = []
    for each in values:
        try:
            record = decoder.decode(each)
            tile = read(record)
            whole = all(len(sketch) % 4 == 0 for sketch in tile.sketches) and 0 <= tile.grain_s < 2**31
            found.append((tuple(record[key] for key in view.entity), tile) if whole else None)
        except UndecodableError:
            found.append(None)
    return found


def assert_same(name: str, values: list[bytes], fetch: Any) -> None:
    view = PLAN.views[name]
    batch = TileRecords(view, fetch).read(values)
    layout = batch.packed.layout
    assert layout is Layout.of(len(double_fields(view)), len(sketch_fields(view)), layout.partitions)
    wanted = expected(name, values, fetch)
    assert list(batch.entities) == [each and each[0] for each in wanted]
    assert sorted(i for i, _ in batch.unreadable) == [i for i, each in enumerate(wanted) if each is None]
    for i, each in enumerate(wanted):
        if each is not None:
            one = pack(layout, [each[1]])
            assert batch.packed.rows[i * layout.width : (i + 1) * layout.width] == one.rows
            assert [column[i] for column in batch.packed.sketches] == [column[0] for column in one.sketches]
            assert (batch.packed.hop[i], batch.packed.grain[i]) == (one.hop[0], one.grain[0])


@pytest.mark.parametrize("name", PLAN.views)
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_records_and_what_is_left_of_them(name: str, data: st.DataObject) -> None:
    view = PLAN.views[name]
    encoder = Encoder(view.topic, 7)
    values = [encoder.encode(each) for each in data.draw(st.lists(records(name), max_size=4))]
    for i in data.draw(st.lists(st.integers(0, 3), max_size=3)):
        if i < len(values):
            harmed = bytearray(values[i])
            at = data.draw(st.integers(0, len(harmed)))
            harmed[at : at + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
            values[i] = bytes(harmed)

    def fetch(schema_id: int) -> Any:
        if schema_id != 7:
            raise UndecodableError(f"schema id {schema_id} is not registered")
        return topic(view.topic).schema

    assert_same(name, values, fetch)


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_records_of_other_schemas_lie_among_them(data: st.DataObject) -> None:
    from io import BytesIO

    from fastavro import schemaless_writer

    view = PLAN.views["dealer_orders"]
    current = topic(view.topic).schema
    assert current
    older = copy.deepcopy(current)
    older["fields"] = [
        each for each in older["fields"] if each["name"] not in ("discount_sum", "product_id_distinct")
    ]
    older["fields"].append({"name": "gone", "type": "string"})
    ids = {7: current, 8: older}
    values = []
    for each in data.draw(st.lists(records("dealer_orders"), max_size=6)):
        which = data.draw(st.sampled_from([7, 8]))
        buffer = BytesIO()
        buffer.write(b"\0" + which.to_bytes(4, "big"))
        schemaless_writer(buffer, parse_schema(plain(ids[which])), each | {"gone": "x"})
        values.append(buffer.getvalue())
    assert_same("dealer_orders", values, ids.__getitem__)


def test_rows_have_room_for_the_widest_positions() -> None:
    view = PLAN.views["product_demand"]
    encoder = Encoder(view.topic, 7)
    blank = {"product_id": "p", "grain": 86_400, "hop": 0, "n": 1}
    rest = {each["name"]: None for each in topic(view.topic).schema["fields"]}  # type: ignore[index]
    values = [encoder.encode(rest | blank | {"positions": some}) for some in ([1], [1, 2, 3], None)]
    batch = TileRecords(view, lambda _: topic(view.topic).schema).read(values, 4)
    table = np.frombuffer(batch.packed.rows, batch.packed.layout.dtype)
    assert table["positions"].tolist() == [[1, -1, -1, -1], [1, 2, 3, -1], [-1, -1, -1, -1]]


def test_a_record_that_is_cut_anywhere_is_refused() -> None:
    view = PLAN.views["dealer_orders"]
    schema = topic(view.topic).schema
    assert schema
    some = {"string": "d1", "int": 60, "long": 300, "double": 1.5, "bytes": b"abcd"}
    record = {}
    for each in schema["fields"]:
        kind = each["type"][1] if isinstance(each["type"], list) else each["type"]
        record[each["name"]] = [5, 200] if isinstance(kind, dict) else some[kind]
    whole = Encoder(view.topic, 7).encode(record)
    for end in range(len(whole)):
        assert_same(view.name, [whole, whole[:end]], lambda _: schema)
        assert_same(view.name, [whole[:end], whole], lambda _: schema)
