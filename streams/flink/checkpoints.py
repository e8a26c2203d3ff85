"""Where a job left off: the newest complete checkpoint or savepoint in its folder."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

__all__ = ["local_path", "newest"]


def local_path(uri: str) -> Path | None:
    """Return the folder behind a `file:` URI or a plain path; None for any other store."""
    parts = urlsplit(uri)
    return Path(unquote(parts.path)) if parts.scheme in ("", "file") else None


def newest(folder_uri: str) -> str | None:
    """Return the URI of the newest complete checkpoint or savepoint below a local folder, or None.

    A checkpoint is complete once its `_metadata` is there: Flink writes that last.
    """
    folder = local_path(folder_uri)
    if folder is None or not folder.is_dir():
        return None
    found = [
        (metadata.stat().st_mtime_ns, metadata.parent)
        for pattern in ("*/chk-*/_metadata", "savepoint-*/_metadata")
        for metadata in folder.glob(pattern)
    ]
    return max(found)[1].resolve().as_uri() if found else None
