"""Settings of leads."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["LeadSettings"]


class LeadSettings(BaseModel):
    """Whether leads are scored, and how long they are known."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    enabled: bool = Field(False, description="whether `up` and `demo` start the scoring of leads; about 0.2 GB")
    keep_days: float = Field(
        90.0, gt=0, description="how long a conversation is known, and an outcome waits for its message, days"
    )
    batch_records: int = Field(500, ge=1, description="most messages and outcomes taken together")
