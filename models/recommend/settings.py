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
    behaviour_every_s: float | None = Field(
        None, ge=1, description="how often dealers whose orders changed are embedded, s; unset: never"
    )
    behaviour_dimension: int = Field(
        256, ge=64, le=4_096, multiple_of=64, description="length of a dealer's vector, a multiple of 64"
    )
    behaviour_tolerance: float = Field(
        0.001,
        ge=0,
        le=2,
        description="a vector that moved less than this, as 1 - cosine, is not published again",
    )
    follow_s: float = Field(0.5, gt=0, description="how often it is looked at which model ranks, s")
    batch_records: int = Field(5_000, ge=1, description="most records folded together")
    poll_ms: int = Field(20, ge=1, description="longest wait to fill a batch, ms")
