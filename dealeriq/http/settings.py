"""How the HTTP service listens and what it allows."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

__all__ = ["HttpSettings"]


class HttpSettings(BaseModel):
    """The `http` section of the settings."""

    model_config = ConfigDict(extra="forbid")

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    url: str | None = Field(
        None, description="base URL under which clients reach the service; unset: host and port"
    )
    clock: Literal["wall", "event"] = Field(
        "wall",
        description="what `now` means when a request names no time: wall clock, or latest event time (replays)",
    )
    token: SecretStr | None = Field(
        None, description="bearer token that every /v1 request must carry; unset: none"
    )
    cors_origins: list[str] = Field([], description="origins a browser may call from; `*` for any; empty: none")
    max_body_bytes: int = Field(1_048_576, ge=1024, description="largest request body, bytes")
    max_entities: int = Field(1_000, ge=1, description="most entities in one request")
    redis_timeout_s: float = Field(2.0, gt=0, description="seconds to wait for Redis before answering 503")
