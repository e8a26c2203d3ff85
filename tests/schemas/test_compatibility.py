from __future__ import annotations

import copy
import io

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.catalogue import topic
from schemas.compatibility import breaks, check, history, record, require_compatible
from schemas.errors import IncompatibleSchemaError


def changed(change, name="orders"):
    schema = copy.deepcopy(topic(name).schema)
    change({field["name"]: field for field in schema["fields"]}, schema["fields"])
    return schema


def found(change):
    return breaks("orders-value", topic("orders").schema, changed(change), 1)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda f, all_: all_.append({"name": "extra", "type": "string"}), "extra"),
        (lambda f, all_: f["quantity"].update(type="int"), "quantity"),
        (lambda f, all_: f["customer_id"].update(type="string"), "customer_id"),
        (lambda f, all_: f["event_time"].update(type="long"), "event_time"),
        (lambda f, all_: f["quantity"].update(maximum=10), "quantity"),
        (lambda f, all_: f["currency"].update(pattern="^USD$"), "currency"),
        (lambda f, all_: f["brand"].update(maxLength=10), "brand"),
        (lambda f, all_: f["brand"].update(name="make") or f["brand"].pop("default"), "make"),
    ],
)
def test_a_change_that_breaks_is_named(change, field):
    findings = found(change)
    assert [each.field for each in findings] == [field]
    assert findings[0].old
    assert findings[0].new
    assert findings[0].remedy


@pytest.mark.parametrize(
    "change",
    [
        lambda f, all_: all_.append({"name": "extra", "type": ["null", "string"], "default": None}),
        lambda f, all_: all_.remove(f["brand"]),
        lambda f, all_: f["line"].update(type="long"),
        lambda f, all_: f["dealer_id"].update(type=["null", "string"]),
        lambda f, all_: f["quantity"].update(maximum=2_000_000),
        lambda f, all_: f["order_id"].update(name="basket_id", aliases=["order_id"]),
        lambda f, all_: f["brand"].update(doc="other words"),
    ],
)
def test_a_change_that_reads_everything_passes(change):
    assert found(change) == []


def test_words_of_a_list_may_be_added_and_not_taken():
    more = changed(lambda f, _: f["sender"].update(pattern="^(customer|dealer|unknown|bot)$"), "chats")
    assert breaks("chats-value", topic("chats").schema, more) == []
    assert breaks("chats-value", more, topic("chats").schema)


def test_history_is_transitive_and_recorded_once(tmp_path):
    one = {"type": "record", "name": "R", "fields": [{"name": "a", "type": "long"}]}
    two = {"type": "record", "name": "R", "fields": []}
    three = {"type": "record", "name": "R", "fields": [{"name": "a", "type": "string", "default": ""}]}
    assert [each.kind for each in check({"r-value": one}, tmp_path)] == ["unrecorded"]
    assert record({"r-value": one}, tmp_path) == [("r-value", 1)]
    assert record({"r-value": one}, tmp_path) == []
    assert record({"r-value": two}, tmp_path) == [("r-value", 2)]
    assert breaks("r-value", two, three) == []  # only version 1 cannot be read
    with pytest.raises(IncompatibleSchemaError, match=r"a was long \(version 1\) and is string"):
        require_compatible({"r-value": three}, tmp_path)
    with pytest.raises(IncompatibleSchemaError):
        record({"r-value": three}, tmp_path)
    assert [number for number, _ in history("r-value", tmp_path)] == [1, 2]
    assert [each.kind for each in check({}, tmp_path)] == ["removed"]


_PRIMITIVES = ["int", "long", "float", "double", "string", "boolean"]
_TYPES = st.sampled_from(_PRIMITIVES) | st.lists(
    st.sampled_from(["null", *_PRIMITIVES]), min_size=1, unique=True
)
_SAMPLES = {"int": 1, "long": 2**40, "float": 1.5, "double": 2.5, "string": "s", "boolean": True, "null": None}


@given(_TYPES, _TYPES)
def test_what_passes_is_readable_by_avro(old, new):
    def schema(kind):
        return {"type": "record", "name": "R", "fields": [{"name": "a", "type": kind}]}

    if breaks("r", schema(old), schema(new)):
        return
    writer, reader = fastavro.parse_schema(schema(old)), fastavro.parse_schema(schema(new))
    for kind in old if isinstance(old, list) else [old]:
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, writer, {"a": _SAMPLES[kind]})
        buffer.seek(0)
        fastavro.schemaless_reader(buffer, writer, reader)
