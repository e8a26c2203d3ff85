"""What the service answers, as typed models; fields a newer service adds are kept out of the way."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "BoughtTogether",
    "Companion",
    "Compatible",
    "FeaturePlan",
    "FeatureRow",
    "Health",
    "Insight",
    "InsightPage",
    "Plan",
    "Prices",
    "Reason",
    "Recommendation",
    "RecommendationReason",
    "Recommendations",
    "SearchAnswer",
    "SearchHit",
    "SearchReason",
    "SimilarDealer",
    "SimilarDealers",
    "StandIn",
    "Status",
    "ViewPlan",
]

Status = Literal["PRESENT", "EMPTY", "STALE", "UNKNOWN"]
Value = float | int | str | bool | list[Any] | None


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class FeatureRow(_Answer):
    """The features of one entity at one moment.

    `at_ms` is the event-time clock (ms since epoch) that the windows end at. `statuses` and `event_times_ms`
    are filled only where asked for (`detail=True`).
    """

    entity: dict[str, str | int]
    at_ms: int = Field(alias="at")
    features: dict[str, dict[str, Value]]
    statuses: dict[str, dict[str, Status]] = {}
    event_times_ms: dict[str, int | None] = Field({}, alias="event_times")

    @property
    def at(self) -> datetime:
        """The clock of this row, in UTC."""
        return datetime.fromtimestamp(self.at_ms / 1000, UTC)

    def __getitem__(self, reference: str) -> Value:
        """The value of `view:feature`. Raises KeyError where the row does not hold it."""
        view, _, feature = reference.partition(":")
        return self.features[view][feature]


class Reason(_Answer):
    """How far one of the model's inputs moved what an insight is about.

    `usual` is what the input usually is, `by` how much more the value is than it would be then.
    """

    input: str
    value: float | None
    usual: float | None
    by: float


class Insight(_Answer):
    """Something a dealer should know. `cursor` is what to resume after; `event_time_ms` ms since epoch."""

    cursor: str
    id: str = Field(alias="event_id")
    dealer_id: str
    rule: str
    rule_version: str
    severity: Literal["info", "notice", "warning", "critical"]
    text: str
    value: float
    threshold: float
    subject_type: str
    subject_id: str
    model: str
    model_version: str
    reasons: list[Reason]
    score_position: str
    score_id: str = Field(alias="cause_id")
    event_time_ms: int = Field(alias="event_time")

    @property
    def at(self) -> datetime:
        """When it happened, event time, in UTC."""
        return datetime.fromtimestamp(self.event_time_ms / 1000, UTC)


class InsightPage(_Answer):
    """Some insights of a dealer; `more` says whether there are more in this direction."""

    insights: list[Insight]
    more: bool


class FeaturePlan(_Answer):
    """One feature: an aggregate of a column over a window of `window_ms`."""

    name: str
    column: str
    function: str
    window_ms: int
    dtype: str


class ViewPlan(_Answer):
    """A feature view: its entity keys, source topic, time to live and features."""

    name: str
    entity: list[str]
    source_topic: str
    ttl_ms: int | None = None
    features: list[FeaturePlan]


class Plan(_Answer):
    """What can be asked for."""

    views: list[ViewPlan]
    services: dict[str, list[str]]


class SearchReason(_Answer):
    """Why a hit is there, of one list: its rank in it from 1, and its score there."""

    rank: int
    score: float


class SearchHit(_Answer):
    """One product or document that was found, by the part of its text that fits best.

    `start` and `end` say where `text` stands in the original; `highlights` are the query's words in `text`, as
    [start, end); `why` names each list (meaning, words, like-KIND) that it is in; `weight` is what feedback
    made of the score, and feedback about this hit names `feedback_id` as its subject.
    """

    type: str
    id: str
    score: float
    text: str
    chunk: int | None = None
    start: int | None = None
    end: int | None = None
    highlights: list[tuple[int, int]] = []
    fields: dict[str, Any] = {}
    why: dict[str, SearchReason] = {}
    feedback_id: str = ""
    weight: float = 1.0


class SearchAnswer(_Answer):
    """The hits, best first; `corrected` maps misspelt words to what was taken for them.

    `kinds` are the kinds of vectors that were searched with.
    """

    hits: list[SearchHit]
    corrected: dict[str, str] = {}
    encoder: str
    kinds: list[str] = []
    took_ms: float
    held_out: bool = False


class RecommendationReason(_Answer):
    """Why a product is recommended.

    `bought_with` are products of the dealer that it is ordered with; `taken_up` counts the dealers that ordered
    it for the first time, the longer ago the less; `popular_in` a region or category; `text` says it in words.
    """

    bought_with: list[str]
    taken_up: float
    popular_in: str | None
    text: str


class Recommendation(_Answer):
    """A product that a dealer does not have yet."""

    product_id: str
    category: str
    score: float
    why: RecommendationReason


class Recommendations(_Answer):
    """What a dealer is recommended, the best first; `known` says whether it has ordered anything.

    `at_ms` is the newest event that is in them, ms since the epoch; `model_version` the version of
    `next_best_products` that ranked them, None where none did: then `score` is the plain score.
    """

    dealer_id: str
    at_ms: int = Field(alias="at")
    known: bool
    model_version: str | None = None
    recommendations: list[Recommendation]


class Effect(_Answer):
    """A relative change with its 95 % interval: 0.1 is ten per cent more."""

    expected: float
    low: float
    high: float


class Sold(_Answer):
    """What was sold in 30 days."""

    amount: float
    quantity: float


class GroupPrice(_Answer):
    """A product group: its elasticity within [`low`, `high`], and the price change that earns most.

    `change` is relative to the usual price, 0 to keep it; `gain` is of what was maximised. `lowest` and
    `highest` are prices over the usual one within which nine in ten were seen; where `estimated` is false its
    own prices hardly moved. `why` says the reason in words.
    """

    group: str
    elasticity: float
    low: float
    high: float
    lowest: float
    highest: float
    estimated: bool
    change: float
    quantity: Effect
    revenue: Effect
    gain: Effect
    why: str
    sold_30d: Sold


class Prices(_Answer):
    """What a dealer's prices could earn, the largest gain first; `version` is the model's, None without one.

    `at_ms` is the moment that the sales of 30 days end at; `assumed` goes with every advice.
    """

    dealer_id: str
    at_ms: int = Field(alias="at")
    version: str | None
    margin: float | None
    assumed: str
    groups: list[GroupPrice]


class Companion(_Answer):
    """A product that is bought with another: `together` orders hold both, of its own `lines`.

    `lift` is how many times more often that is than if the two were independent; `score` is the log-likelihood
    ratio, by which they are ranked.
    """

    product_id: str
    name: str | None = None
    category: str | None = None
    together: int
    lines: int
    lift: float
    score: float


class BoughtTogether(_Answer):
    """What a product is bought with, the surest first; `orders` are the newest of its own that were read."""

    product_id: str
    name: str | None = None
    orders: int
    all_orders: int
    products: list[Companion]


class StandIn(_Answer):
    """A product of the same class; `dealers` order both, the last one at `last_ms` (ms since epoch)."""

    product_id: str
    name: str | None = None
    category: str | None = None
    package_size: str | None = None
    price: float | None = None
    dealers: int
    last_ms: int


class Compatible(_Answer):
    """What can stand in for a product; `dealers` order it, `class_path` is the class that all share."""

    product_id: str
    name: str | None = None
    class_path: str | None = Field(None, alias="class")
    dealers: int
    products: list[StandIn]


class SimilarDealer(_Answer):
    """A dealer that orders `shared` of another's products, and `products` in all; `score` is their cosine."""

    dealer_id: str
    name: str | None = None
    region: str | None = None
    shared: int
    products: int
    score: float


class SimilarDealers(_Answer):
    """Dealers like one, the most similar first, by the `products` that it orders most."""

    dealer_id: str
    name: str | None = None
    products: int
    dealers: list[SimilarDealer]


class Health(_Answer):
    """Readiness: `checks` says per dependency what was found."""

    ready: bool
    checks: dict[str, Any] = {}
