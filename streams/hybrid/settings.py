"""Settings of the vectors that several kinds are fused into."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["HybridSettings"]


class HybridSettings(BaseModel):
    """Which kinds are fused, with which weights, and where the process keeps them."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    enabled: bool = Field(
        False, description="whether the vectors of a product are fused into one of kind hybrid"
    )
    kinds: list[Literal["text", "graph", "image"]] | None = Field(
        None, min_length=2, description="kinds that are fused; unset: text, and those that are published"
    )
    text_weight: float = Field(1.0, gt=0, description="what the cosine of texts weighs")
    graph_weight: float = Field(8.0, gt=0, description="what the cosine of places in the graph weighs")
    image_weight: float = Field(1.0, gt=0, description="what the cosine of pictures weighs")
    folder: Path | None = Field(
        None, description="folder of what is known of the parts; unset: `hybrid` in the data folder"
    )
    batch_records: int = Field(1_000, ge=1, le=10_000, description="most records of embeddings folded together")
    poll_ms: int = Field(20, ge=1, description="longest wait to fill a batch, ms")

    def weight(self, kind: str) -> float:
        """Return the weight of a kind."""
        return float(getattr(self, f"{kind}_weight"))
