"""`report.json` of a version: what its training found, for whoever asks about it later."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.artifact import ArtifactError

__all__ = ["REPORT", "load_report", "save_report"]

REPORT = "report.json"


def save_report(folder: Path, report: Mapping[str, Any]) -> Path:
    """Write it into a version's folder, whole or not at all, in the place of an earlier one."""
    handle, name = tempfile.mkstemp(prefix=f".{REPORT}-", dir=folder)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as fresh:
            json.dump(report, fresh, indent=1, allow_nan=False)
        Path(name).chmod(0o644)
        Path(name).replace(folder / REPORT)
    finally:
        Path(name).unlink(missing_ok=True)
    return folder / REPORT


def load_report(folder: Path) -> dict[str, Any]:
    """Read a version's report. Raises ArtifactError where there is none, or it is damaged."""
    try:
        found: dict[str, Any] = json.loads((folder / REPORT).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{folder / REPORT} cannot be read: {error}",
            remedy="Train the model again: versions of earlier releases have no report.",
        ) from error
    return found
