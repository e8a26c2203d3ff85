"""Settings of the agents."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["AgentSettings"]


class AgentSettings(BaseModel):
    """How the agents take, repeat and remember."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    # Texts are sorted by length within a batch: of 256 chats a fifth of the encoder's work is padding, of 1024
    # a twentieth. A batch is this large only when there is a backlog.
    batch_size: int = Field(1_024, ge=1, le=10_000, description="most events handled together")
    # Of a catalogue that is sent again few records change: the encoder gets enough texts together only of many.
    embed_batch_size: int = Field(
        8_192, ge=1, le=10_000, description="as batch_size, of records that are encoded in parts"
    )
    batch_within_s: float = Field(0.02, ge=0, le=60, description="longest wait to fill a batch, s")
    encoded_at_once: int = Field(
        2, ge=1, le=64, description="parts of a backlog that the embed agent encodes at once, each on a core"
    )
    retry_first_s: float = Field(0.2, gt=0, description="first wait when a service is down, s; it doubles")
    retry_most_s: float = Field(10.0, gt=0, description="longest wait when a service is down, s")
    follow_s: float = Field(1.0, gt=0, description="how often the lifecycle of models is looked at, s")
    remembered_readings: int = Field(
        20_000, ge=0, description="distinct texts whose reading is kept in memory (about 250 bytes each)"
    )
    subject_days: float = Field(
        30.0,
        gt=0,
        description="how long a chat is known to the label view, and feedback waits for its chat, days",
    )
