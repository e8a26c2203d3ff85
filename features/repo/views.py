"""The feature views. Adding a window or an aggregate is a change of one line here."""

from datetime import timedelta

from feast import Entity, Field, KafkaSource, StreamFeatureView
from feast.aggregation import Aggregation
from feast.types import Bytes

from features.repo import entities, sources

H1, H24 = timedelta(hours=1), timedelta(hours=24)
D7, D30, D90 = timedelta(days=7), timedelta(days=30), timedelta(days=90)
RECENT = (H1, H24, D7, D30, D90)
DAILY = (H24, D7, D30, D90)
WEEKLY = (D7, D30, D90)


def _over(windows: tuple[timedelta, ...], column: str, *functions: str) -> list[Aggregation]:
    return [
        Aggregation(column=column, function=function, time_window=window)
        for function in functions
        for window in windows
    ]


def _view(
    name: str,
    source: KafkaSource,
    keys: list[Entity],
    hop: timedelta,
    ttl: timedelta,
    *aggregations: list[Aggregation],
) -> StreamFeatureView:
    return StreamFeatureView(
        name=name,
        source=source,
        entities=keys,
        ttl=ttl,
        schema=[Field(name="tiles", dtype=Bytes)],
        aggregations=[each for group in aggregations for each in group],
        timestamp_field="event_time",
        enable_tiling=True,
        tiling_hop_size=hop,
        online=True,
    )


dealer_orders = _view(
    "dealer_orders", sources.orders, [entities.dealer], timedelta(minutes=1), D90,
    _over(RECENT, "event_id", "count"),
    _over(RECENT, "amount", "sum", "mean", "std", "min", "max"),
    _over((D90,), "amount", "last"),
    _over(RECENT, "quantity", "sum"),
    _over(RECENT, "discount", "sum"),
    _over(DAILY, "customer_id", "approx_count_distinct"),
    _over(DAILY, "product_id", "approx_count_distinct"),
)  # fmt: skip

dealer_category_orders = _view(
    "dealer_category_orders", sources.orders, [entities.dealer, entities.category], timedelta(hours=1), D90,
    _over(DAILY, "event_id", "count"),
    _over(DAILY, "amount", "sum", "mean", "max"),
    _over(DAILY, "quantity", "sum"),
)  # fmt: skip

product_demand = _view(
    "product_demand", sources.orders, [entities.product], timedelta(days=1), D90,
    _over(WEEKLY, "event_id", "count"),
    _over(WEEKLY, "quantity", "sum", "mean", "std", "max"),
    _over(WEEKLY, "amount", "sum"),
)  # fmt: skip

dealer_chats = _view(
    "dealer_chats", sources.chats, [entities.dealer], timedelta(minutes=1), D90,
    _over(RECENT, "event_id", "count"),
    _over(RECENT, "sentiment", "mean", "std", "min"),
    _over((D90,), "sentiment", "last"),
    _over(RECENT, "urgency", "mean", "max"),
    _over(DAILY, "conversation_id", "approx_count_distinct"),
    _over(DAILY, "intent", "approx_count_distinct"),
)  # fmt: skip

dealer_feedback = _view(
    "dealer_feedback", sources.feedback, [entities.dealer], timedelta(minutes=1), D90,
    _over(RECENT, "event_id", "count"),
    _over(RECENT, "value", "mean", "std", "min", "max"),
    _over((D90,), "value", "last"),
)  # fmt: skip

VIEWS = (dealer_orders, dealer_category_orders, product_demand, dealer_chats, dealer_feedback)
