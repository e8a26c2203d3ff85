"""Opening a version as the registry names it."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from models.artifact import ArtifactError
from models.lifecycle import ModelState
from models.runtime.session import RuntimeSettings, Session

__all__ = ["folder_of", "open_registered"]


def folder_of(artifact: str) -> Path:
    """Return the folder of an artefact's address: a path or a `file:` URI. Raises ArtifactError for others."""
    parts = urlsplit(artifact)
    if parts.scheme not in ("", "file"):
        raise ArtifactError(
            f"{artifact} is not a folder that can be read here", remedy="Mount it, and register its path."
        )
    return Path(unquote(parts.path) if parts.scheme else artifact)


def open_registered(state: ModelState, version: str, settings: RuntimeSettings) -> Session:
    """Return a version's session, warm. Raises NoSuchVersionError, and ArtifactError where its folder cannot be
    served or holds something else than was registered.
    """
    known = state.version(version)
    session = Session(folder_of(known.artifact), settings)
    if session.name != state.name or session.version != version:
        raise ArtifactError(
            f"{known.artifact} holds {session.name} {session.version}, and was registered as "
            f"{state.name} {version}"
        )
    if known.sha256 and session.description.sha256 != known.sha256:
        raise ArtifactError(f"{known.artifact} holds another file than the one that was registered")
    return session
