"""Where the index is, and how its versions are opened."""

from __future__ import annotations

from pathlib import Path

from connectors.vectors import Encoding, Kinds, VectorIndex
from connectors.vectors.edge import EdgeIndex
from connectors.vectors.folder import IndexFolder
from dealeriq.search.servers import open_on_server
from dealeriq.settings import Settings
from models.search.fields import KEYWORDS, NUMBERS, TEXT
from models.text import Encoder

__all__ = ["current_version", "folder_of", "kinds_of", "open_version"]


def folder_of(settings: Settings) -> IndexFolder:
    """Return the folder of the index that the settings name."""
    return IndexFolder(settings.search.folder or settings.data_dir / "index")


def kinds_of(settings: Settings, encoder: Encoder) -> Kinds:
    """Return the kinds of vectors in the index: those of `search.kinds`, else text, and graph if there is one.

    A graph makes versions of its encoder's vectors by itself, so its encoder is named without one.
    """
    graph = settings.graph
    known = {
        TEXT: Encoding(encoder.identity, encoder.dimension),
        "graph": Encoding(f"graph-{graph.embedding}-{graph.embedding_dimension}", graph.embedding_dimension),
    }
    with_graph = graph.enabled or graph.url is not None
    return {
        name: each
        for name, each in known.items()
        if (name in settings.search.kinds if settings.search.kinds else name == TEXT or with_graph)
    }


def current_version(folder: IndexFolder) -> Path:
    """Return the version that counts; where there is none, a new one that counts from now on."""
    version = folder.current()
    if version is None:
        version = folder.fresh()
        folder.swap(version)
    return version


def open_version(version: Path, settings: Settings, kinds: Kinds) -> VectorIndex:
    """Open a version, or make it where nothing is there.

    Raises IndexDamagedError, WrongFormatError, IndexUnavailableError.
    """
    if settings.search.index_url is not None:
        return open_on_server(version, settings.search, kinds, KEYWORDS, NUMBERS)
    return EdgeIndex(version, kinds, KEYWORDS, NUMBERS)
