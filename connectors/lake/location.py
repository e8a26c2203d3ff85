"""Where the lake is: a folder or an object store's address, with what is needed to open it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Lake", "Root", "lake_of"]


@dataclass(frozen=True)
class Lake:
    """The root of all tables. `options` are deltalake's storage options (S3's keys, endpoint and region)."""

    url: str
    options: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def is_local(self) -> bool:
        """True for a folder of this machine."""
        return "://" not in self.url


Root = str | Path | Lake
"""What readers take: the lake, or a folder's path alone."""


def lake_of(root: Root) -> Lake:
    """Return the lake at a root; a folder's path is made absolute."""
    if isinstance(root, Lake):
        return root
    text = str(root)
    if text.startswith("file://"):
        text = text.removeprefix("file://")
    return Lake(text if "://" in text else str(Path(text).absolute()))
