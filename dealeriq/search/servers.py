"""An index on a server: each version of the index's folder keeps the name of its collection there.

So versions are made beside each other, swapped and removed as those of an index in this process are, and the
folder still has one owner.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from connectors.vectors import Kinds, VectorIndex
from dealeriq.search.settings import SearchSettings

if TYPE_CHECKING:  # an index in this process does without it
    from qdrant_client import QdrantClient

__all__ = ["forgetter", "open_on_server"]

_FILE = "collection"


def open_on_server(
    version: Path, settings: SearchSettings, kinds: Kinds, keywords: tuple[str, ...], numbers: tuple[str, ...]
) -> VectorIndex:
    """Open a version's collection, or make it. Raises IndexUnavailableError, WrongFormatError."""
    file = version / _FILE
    if not file.exists():
        version.mkdir(parents=True, exist_ok=True)
        beside = version / f".{_FILE}"
        beside.write_text(f"Dealeriq{uuid.uuid4().hex[:16]}")
        beside.replace(file)
    name, (engine, address) = file.read_text(), _address(settings)
    if engine == "weaviate":
        from connectors.vectors.weaviate import WeaviateIndex, connect

        return WeaviateIndex(connect(address, _key(settings)), name, kinds, keywords, numbers)
    from connectors.vectors.server import ServerIndex

    return ServerIndex(_qdrant(address, settings), name, kinds, keywords, numbers)


def forgetter(settings: SearchSettings) -> Callable[[Path], None]:
    """Return what removes a version's collection, before the version is removed.

    It raises IndexUnavailableError where the server is away; nothing is done for a version that has none.
    """

    def forget(version: Path) -> None:
        file = version / _FILE
        if settings.index_url is None or not file.exists():
            return
        name, (engine, address) = file.read_text(), _address(settings)
        if engine == "weaviate":
            from connectors.vectors.weaviate import connect, drop

            with connect(address, _key(settings)) as server:
                drop(server, name)
            return
        from connectors.vectors.server import drop as drop_collection

        drop_collection(_qdrant(address, settings), name)

    return forget


def _address(settings: SearchSettings) -> tuple[str, str]:
    """Engine, and the address that it is asked at."""
    engine, _, address = (settings.index_url or "").partition("+")
    return engine, address


def _qdrant(address: str, settings: SearchSettings) -> QdrantClient:
    from qdrant_client import QdrantClient

    return QdrantClient(url=address, api_key=_key(settings), timeout=30, check_compatibility=False)


def _key(settings: SearchSettings) -> str | None:
    return settings.index_key.get_secret_value() if settings.index_key is not None else None
