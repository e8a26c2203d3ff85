"""How the search process listens, and where its index is."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

__all__ = ["SearchSettings"]


class SearchSettings(BaseModel):
    """The `search` section of the settings."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    enabled: bool = Field(False, description="whether the local system embeds products and documents")
    url: str | None = Field(
        None,
        description="base URL of the search process; unset: host and port, if enabled",
    )
    host: str = Field("127.0.0.1", description="address that the search process listens on")
    port: int = Field(8010, ge=0, le=65535, description="port that the search process listens on")
    folder: Path | None = Field(None, description="folder of the index; unset: `index` in the data folder")
    kinds: list[Literal["text", "graph", "image", "behaviour", "hybrid"]] | None = Field(
        None,
        min_length=1,
        description="kinds of vectors in the index; unset: text, and those that the settings let be published",
    )  # fmt: skip
    index_url: str | None = Field(
        None, pattern=r"^(qdrant|weaviate)\+https?://[^/@]+$",
        description="server that keeps the index, qdrant+http://host:6333 or weaviate+http://host:8080; "
        "unset: Qdrant Edge in the search process",
    )  # fmt: skip
    index_key: SecretStr | None = Field(None, description="API key for that server; unset: none")
    threads: int = Field(2, ge=1, le=64, description="searches answered at the same time")
    batch_records: int = Field(500, ge=1, le=10_000, description="most records folded into the index together")
    feedback_bound: float = Field(
        0.3, ge=0, le=0.9, description="most that feedback moves a hit's score, as a share of it; 0: not at all"
    )
    feedback_half_life_days: float = Field(
        30.0, gt=0, description="event time in which feedback loses half of its weight, days"
    )
    feedback_holdout: float = Field(
        0.1, ge=0, le=1, description="share of (dealer, search) that is ranked without feedback"
    )
    timeout_s: float = Field(5.0, gt=0, description="longest wait of the HTTP service for an answer, s")

    def address(self) -> str | None:
        """Where the HTTP service finds the search process; None where there is none."""
        if self.url is None and self.enabled:
            return f"http://{self.host}:{self.port}"
        return self.url
