"""Decoding in columns gives what decoding record by record gives, and leaves alone what that refuses."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.column_decoder import ColumnDecoder
from schemas.catalogue import topic
from schemas.codec import Decoder, Encoder
from schemas.errors import UndecodableError

ID = 7
SOME = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
TEXT = st.text(max_size=12)
LONG = st.integers(-(2**63), 2**63 - 1)
ORDERS = st.fixed_dictionaries(
    {
        "event_id": TEXT, "order_id": TEXT, "line": st.integers(-(2**31), 2**31 - 1), "dealer_id": TEXT,
        "customer_id": st.none() | TEXT, "product_id": TEXT, "category": TEXT, "brand": st.none() | TEXT,
        "quantity": LONG, "amount": st.floats(allow_nan=False), "discount": st.floats(allow_nan=False),
        "currency": TEXT, "channel": TEXT, "event_time": LONG,
    }
)  # fmt: skip


def schema(_: int) -> dict[str, Any]:
    found = topic("orders").schema
    assert found is not None
    return found


@SOME
@given(st.lists(ORDERS, min_size=1, max_size=8))
def test_columns_are_the_records(records: list[dict[str, Any]]) -> None:
    encoder = Encoder("orders", ID)
    table, good = ColumnDecoder(schema(ID), ID).decode([encoder.encode(each) for each in records])
    assert good.all()
    assert table.to_dicts() == records


@SOME
@given(ORDERS, ORDERS, st.data())
def test_broken_bytes_touch_no_other_record(first: dict[str, Any], last: dict[str, Any], data: Any) -> None:
    encoder, slow = Encoder("orders", ID), Decoder(schema, schema(ID))
    whole = encoder.encode(first)
    at = data.draw(st.integers(0, len(whole) - 1))
    broken = data.draw(
        st.sampled_from([whole[:at], whole + b"\0", whole[:at] + b"\xff" + whole[at + 1 :], b"", b"\0" * 5])
        | st.binary(max_size=60)
    )
    values = [encoder.encode(first), broken, encoder.encode(last)]
    table, good = ColumnDecoder(schema(ID), ID).decode(values)
    rows = table.to_dicts()
    assert good[0]
    assert good[2]
    assert (rows[0], rows[2]) == (first, last)
    if good[1]:  # then the record-at-a-time decoder reads the same; what it refuses is never good
        found = slow.decode(broken)
        assert {k: v for k, v in rows[1].items() if v == v} == {k: v for k, v in found.items() if v == v}


def test_what_is_no_record_of_the_schema_is_not_good() -> None:
    whole = Encoder("orders", ID).encode(
        {
            "event_id": "e", "order_id": "o", "line": 1, "dealer_id": "d", "customer_id": None,
            "product_id": "p", "category": "c", "brand": "b", "quantity": 2, "amount": 1.5, "discount": 0.0,
            "currency": "USD", "channel": "store", "event_time": 1_500_000_000_000,
        }
    )  # fmt: skip
    bad = [b"", b"\0", whole[:-1], whole + b"\0", b"\1" + whole[1:], b"\0\0\0\0\x08" + whole[5:], whole[:5]]
    bad += [whole[:5] + b"\xff" * 20, whole[:6] + b"\xff" + whole[7:]]
    _, good = ColumnDecoder(schema(ID), ID).decode([*bad, whole])
    assert good.tolist() == [False] * len(bad) + [True]
    with pytest.raises(UndecodableError):
        Decoder(schema, schema(ID)).decode(bad[-1])


def test_a_schema_with_a_list_is_left_to_the_other_decoder() -> None:
    tiles = topic("tiles.dealer_orders").schema
    assert tiles is not None
    assert not ColumnDecoder.supports(tiles)
    assert ColumnDecoder.supports(schema(ID))
