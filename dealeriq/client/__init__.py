"""The Python client of the HTTP service: needs httpx and pydantic, nothing of the server."""

from dealeriq.client.asynchronous import AsyncDealerIQ
from dealeriq.client.core import RetryPolicy
from dealeriq.client.errors import (
    ConnectionFailedError,
    DealerIQClientError,
    RequestError,
    ServiceError,
    TimedOutError,
    TooLargeError,
    UnauthorizedError,
    UnavailableError,
    UnknownNameError,
    WrongEntityError,
)
from dealeriq.client.sync import DealerIQ
from dealeriq.client.types import (
    FeaturePlan,
    FeatureRow,
    Health,
    Insight,
    InsightPage,
    Plan,
    Reason,
    SearchAnswer,
    SearchHit,
    SearchReason,
    Status,
    ViewPlan,
)

__all__ = [
    "AsyncDealerIQ",
    "ConnectionFailedError",
    "DealerIQ",
    "DealerIQClientError",
    "FeaturePlan",
    "FeatureRow",
    "Health",
    "Insight",
    "InsightPage",
    "Plan",
    "Reason",
    "RequestError",
    "RetryPolicy",
    "SearchAnswer",
    "SearchHit",
    "SearchReason",
    "ServiceError",
    "Status",
    "TimedOutError",
    "TooLargeError",
    "UnauthorizedError",
    "UnavailableError",
    "UnknownNameError",
    "ViewPlan",
    "WrongEntityError",
]
