"""Where the index is, and how its versions are opened."""

from __future__ import annotations

from pathlib import Path

from connectors.vectors.edge import EdgeIndex
from connectors.vectors.folder import IndexFolder
from dealeriq.settings import Settings
from models.search.fields import KEYWORDS, NUMBERS
from models.text import Encoder

__all__ = ["current_version", "folder_of", "open_version"]


def folder_of(settings: Settings) -> IndexFolder:
    """Return the folder of the index that the settings name."""
    return IndexFolder(settings.search.folder or settings.data_dir / "index")


def current_version(folder: IndexFolder) -> Path:
    """Return the version that counts; where there is none, a new one that counts from now on."""
    version = folder.current()
    if version is None:
        version = folder.fresh()
        folder.swap(version)
    return version


def open_version(version: Path, encoder: Encoder) -> EdgeIndex:
    """Open a version, or make it where nothing is there. Raises IndexDamagedError, WrongFormatError."""
    return EdgeIndex(version, encoder.identity, encoder.dimension, KEYWORDS, NUMBERS)
