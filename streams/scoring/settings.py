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
    lines: bool = Field(True, description="whether `up` and `demo` start the scorer of order lines, too")
    line_sample: float = Field(
        0.01, ge=0, le=1,
        description="share of order lines whose scores are kept whatever they are; those beyond a rule's "
        "threshold are kept always",
    )  # fmt: skip
    line_bucket_s: float = Field(
        3_600.0, gt=0, description="features of an order line are at most about so much older than it, s"
    )
    line_since_s: float = Field(
        3_600.0, ge=0,
        description="with the first model of order lines, lines of the last so many seconds are scored, too",
    )  # fmt: skip
    line_batch_records: int = Field(5_000, ge=1, description="most order lines scored together")
    line_commit_ms: int = Field(
        100, ge=1, description="scores of order lines and the position behind them are committed so often, ms"
    )
    wait_s: float = Field(
        2.0, gt=0, description="wait for the feature view to hold a change, before a warning and backoff, s"
    )


class InsightSettings(BaseModel):
    """How soon insights are visible, and how many are kept for reading."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    checkpoint_interval_ms: int = Field(
        500, ge=100, description="insights are committed with each checkpoint of their job, ms"
    )
    parallelism: int = Field(1, ge=1, le=1024, description="parallel instances of the insight job's operators")
    keep: int = Field(1_000, ge=1, description="newest insights of a dealer that can be read")
    keep_days: float = Field(90.0, gt=0, description="how long an insight is found by its id, days")
