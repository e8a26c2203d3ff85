"""Settings of recommendations."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["RecommendSettings"]


class RecommendSettings(BaseModel):
    """What is folded into recommendations, and how fast it is forgotten."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    enabled: bool = Field(True, description="whether `up` and `demo` start the view of recommendations")
    half_life_days: float = Field(
        28.0, gt=0, description="event time in which what was ordered loses half its weight, days"
    )
    stocked_days: float = Field(
        365.0, gt=0, description="a product that the dealer ordered in so many days is not recommended, days"
    )
    batch_records: int = Field(5_000, ge=1, description="most records folded together")
    poll_ms: int = Field(20, ge=1, description="longest wait to fill a batch, ms")
