"""Settings of the warehouse."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["WarehouseSettings"]


class WarehouseSettings(BaseModel):
    """The warehouse over the lake and when it is built."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    file: Path | None = Field(None, description="the DuckDB file; unset: warehouse.duckdb in the data folder")
    every_s: float | None = Field(
        None, ge=10, description="time from one build to the next, s; unset: built only when asked"
    )
    memory_mb: int = Field(2_048, ge=256, description="memory of a build, MiB; beyond it, disk")

    def path(self, data_dir: Path) -> Path:
        """Return the file, beside the data folder's other files unless set."""
        return self.file or data_dir / "warehouse.duckdb"
