"""How the inference process listens, and what it keeps loaded."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["InferenceSettings"]


class InferenceSettings(BaseModel):
    """The `inference` section of the settings."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    enabled: bool = Field(False, description="whether the local system answers the Open Inference Protocol")
    host: str = Field("127.0.0.1", description="address that the inference process listens on")
    port: int = Field(8020, ge=0, le=65535, description="port of its REST interface; 0 takes a free one")
    grpc_port: int = Field(8021, ge=0, le=65535, description="port of its gRPC interface; 0 takes a free one")
    threads: int = Field(2, ge=1, le=256, description="large batches answered at the same time")
    max_body_bytes: int = Field(
        16_777_216, ge=1024, description="largest request, and largest one after decompression, bytes"
    )
    keep: int = Field(8, ge=0, description="versions kept loaded that are neither champion nor challenger")
    follow_s: float = Field(0.5, gt=0, description="how often the lifecycle of models is looked at, s")
