"""Settings of scoring and of insights."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["InsightSettings", "ScoringSettings"]


class ScoringSettings(BaseModel):
    """When entities are scored, and how many at once."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    enabled: bool = Field(True, description="whether `up` and `demo` start the scorer and the insights")
    bucket_s: float = Field(
        3_600.0, gt=0, description="an entity is scored once in each stretch of event time of this length, s"
    )
    batch_records: int = Field(2_000, ge=1, description="most changed tiles looked at together")
    poll_ms: int = Field(5, ge=1, description="longest wait to fill a batch, ms")
    follow_s: float = Field(0.5, gt=0, description="how often the lifecycle of models is looked at, s")
    wait_s: float = Field(
        2.0, gt=0, description="wait for the feature view to hold a change, before a warning and backoff, s"
    )


class InsightSettings(BaseModel):
    """How soon insights are visible, and how many are kept for reading."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    checkpoint_interval_ms: int = Field(
        1_000, ge=100, description="insights are committed with each checkpoint of their job, ms"
    )
    parallelism: int = Field(1, ge=1, le=1024, description="parallel instances of the insight job's operators")
    keep: int = Field(1_000, ge=1, description="newest insights of a dealer that can be read")
    keep_days: float = Field(90.0, gt=0, description="how long an insight is found by its id, days")
