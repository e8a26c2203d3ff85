from __future__ import annotations

import contextlib
import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.catalogue import CATALOGUE, topic
from schemas.codec import Decoder, Encoder
from schemas.errors import EncodeError, UndecodableError
from schemas.validate import problems

_TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)
_TIMES = st.integers(946_684_800_001, 4_102_444_799_999)


def values(avro):
    if isinstance(avro, list):
        return st.one_of([values(each) for each in avro])
    if isinstance(avro, dict):
        if avro.get("logicalType"):
            return _TIMES
        if avro["type"] == "map":
            return st.dictionaries(_TEXT, values(avro["values"]), max_size=3)
        if avro["type"] == "array":
            return st.lists(values(avro["items"]), max_size=3)
        if avro["type"] == "record":
            return st.fixed_dictionaries({f["name"]: values(f["type"]) for f in avro["fields"]})
        avro = avro["type"]
    return {
        "null": st.none(), "string": _TEXT, "bytes": st.binary(max_size=20), "boolean": st.booleans(),
        "int": st.integers(-(2**31), 2**31 - 1), "long": st.integers(-(2**63), 2**63 - 1),
        "double": st.floats(allow_nan=False), "float": st.floats(allow_nan=False, width=32),
    }[avro]  # fmt: skip


def records(name):
    return st.fixed_dictionaries({f["name"]: values(f["type"]) for f in topic(name).schema["fields"]})


def fetch(name):
    return lambda _: topic(name).schema


_NAMES = [each.name for each in CATALOGUE.values() if each.schema is not None]


@given(st.data(), st.sampled_from(_NAMES), st.integers(0, 2**32 - 1))
def test_what_is_encoded_is_decoded(data, name, schema_id):
    record = data.draw(records(name))
    encoded = Encoder(name, schema_id).encode(record)
    assert encoded[:5] == b"\0" + schema_id.to_bytes(4, "big")
    assert Decoder.of_topic(name, fetch(name)).decode(encoded) == record


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_undecodable(data):
    decoder = Decoder.of_topic("orders", fetch("orders"))
    for each in (data, b"\0\0\0\0\1" + data):
        with contextlib.suppress(UndecodableError):
            decoder.apart(each)
        try:
            decoder.decode(each)
        except UndecodableError as error:
            assert str(error)  # noqa: PT017


@given(st.data())
def test_cut_or_lengthened_messages_are_undecodable(data):
    encoded = Encoder("orders", 1).encode(data.draw(records("orders")))
    decoder = Decoder.of_topic("orders", fetch("orders"))
    for each in (encoded[: data.draw(st.integers(0, len(encoded) - 1))], encoded + b"x"):
        with pytest.raises(UndecodableError):
            decoder.decode(each)


def test_a_tombstone_says_so():
    with pytest.raises(UndecodableError, match="tombstone"):
        Decoder.of_topic("products", fetch("products")).decode(None)


def test_an_old_record_is_read_by_a_new_schema(order):
    new = copy.deepcopy(topic("orders").schema)
    new["fields"] = [f for f in new["fields"] if f["name"] != "brand"]
    new["fields"].insert(3, {"name": "returned", "type": "boolean", "default": False})
    read = Decoder(fetch("orders"), new).decode(Encoder("orders", 1).encode(order))
    assert read == {**{k: v for k, v in order.items() if k != "brand"}, "returned": False}


def test_a_record_of_another_topic_is_undecodable_as_this_one(order):
    with pytest.raises(UndecodableError):
        Decoder(fetch("orders"), topic("dealers").schema).decode(Encoder("orders", 1).encode(order))


def test_a_registry_that_is_down_is_not_poison(order):
    calls = []

    def down(schema_id):
        calls.append(schema_id)
        if len(calls) == 1:
            raise ConnectionError("down")
        return topic("orders").schema

    decoder = Decoder.of_topic("orders", down)
    data = Encoder("orders", 9).encode(order)
    with pytest.raises(ConnectionError):
        decoder.decode(data)
    assert decoder.decode(data) == decoder.decode(data) == order
    assert calls == [9, 9]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"quantity": 3.7}, "quantity"),
        ({"amount": "1"}, "amount"),
        ({"dealer_id": None}, "dealer_id"),
        ({"line": 2**31}, "line"),
    ],
)
def test_nothing_is_coerced(order, change, words):
    with pytest.raises(EncodeError, match=words):
        Encoder("orders", 1).encode(order | change)


def test_a_missing_field_is_named_and_a_default_is_filled(order):
    del order["channel"]
    data = Encoder("orders", 1).encode(order)
    assert Decoder.of_topic("orders", fetch("orders")).decode(data)["channel"] == "store"
    assert problems("orders", order) == []
    del order["event_time"]
    with pytest.raises(EncodeError, match="event_time is missing"):
        Encoder("orders", 1).encode(order)


def varint(number, size):
    """A number in seven bits a byte, as long as asked for: a reader takes the long way, too."""
    sevens = [number >> 7 * at & 0x7F for at in range(size)]
    return bytes([*(each | 0x80 for each in sevens[:-1]), sevens[-1]])


@given(st.data(), st.sampled_from(["products", "documents", "orders"]), _TIMES, _TIMES)
def test_records_that_say_the_same_but_for_their_time_are_known_by_their_bytes(data, name, first, second):
    decoder, encode = Decoder.of_topic(name, fetch(name)), Encoder(name, 7).encode
    record, other = data.draw(records(name)), data.draw(records(name))
    one, two = (decoder.apart(encode(record | {"event_time": each})) for each in (first, second))
    if max(first, second) >= 2**41:  # 2039-09-07: written in seven bytes
        return
    assert (one[1], two[1], one[0] == two[0]) == (first, second, True)
    third = decoder.apart(encode(other | {"event_time": second}))
    said = [each | {"event_time": 0} for each in (record, other)]
    assert (third[0] == one[0]) == (said[0] == said[1])


@given(st.data())
def test_bytes_of_any_form_that_say_the_same_read_the_same(data):
    """Also where a time is written longer than it must be, and what stands before it looks like one."""
    name = "products"
    decoder, encode = Decoder.of_topic(name, fetch(name)), Encoder(name, 7).encode
    base = {each["name"]: None for each in topic(name).schema["fields"]}
    base |= {"product_id": "1", "name": "n", "category": "c", "deleted": False}
    made = []
    for _ in range(4):
        head = encode(base | {"name": data.draw(st.sampled_from(["n", "m"])), "event_time": 0})[:-1]
        edges = [0, 1, 63, 64, 2**20, 2**34 - 1, 2**34, 2**41 - 1, 2**41, 2**48, -5]
        time_ms = data.draw(st.sampled_from(edges))
        zigzag = time_ms * 2 if time_ms >= 0 else -time_ms * 2 - 1
        least = max(1, -(-zigzag.bit_length() // 7))
        made.append(head + varint(zigzag, data.draw(st.integers(least, 9))))
    read = [decoder.decode(each) for each in made]
    apart = [decoder.apart(each) for each in made]
    for at, known in enumerate(apart):
        if known is None or read[at]["event_time"] != known[1]:
            continue  # not to be relied on
        for other, found in zip(read, apart, strict=True):
            if found is not None and found[0] == known[0]:
                assert other == read[at] | {"event_time": found[1]}


@pytest.mark.parametrize(
    "fields",
    [
        [{"name": "event_time", "type": "long"}, {"name": "last", "type": "long"}],
        [{"name": "a", "type": "long"}, {"name": "event_time", "type": ["null", "long"]}],
        [{"name": "event_time", "type": "string"}],
        [],
    ],
)
def test_a_record_whose_last_field_is_no_event_time_has_to_be_read(fields):
    schema = {"type": "record", "name": "R", "fields": fields}
    decoder = Decoder(lambda _: schema, {"type": "record", "name": "R", "fields": []})
    data = b"\0\0\0\0\7" + varint(2 * 1_500_000_000_000, 6) * 3
    assert decoder.apart(data) is None
