"""Where the lake is: a folder or an object store's address, with what is needed to open it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from connectors.settings import LakeSettings

__all__ = ["Lake", "Root", "lake_at", "lake_of"]


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
    text = str(root).removeprefix("file://")
    return Lake(text if "://" in text else str(Path(text).absolute()))


def lake_at(settings: LakeSettings, data_dir: Path) -> Lake:
    """Return the lake that the settings name: their address, or a folder of the data folder."""
    if settings.url is None:
        return lake_of(data_dir / "lake")
    options = settings.options()
    return Lake(settings.url, options) if options else lake_of(settings.url)
