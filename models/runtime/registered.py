"""Opening a version as the registry names it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from models.artifact import ArtifactError
from models.lifecycle import ModelState
from models.runtime.numbers import number_of
from models.runtime.remote import RemoteSession
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


def open_registered(
    state: ModelState, version: str, settings: RuntimeSettings,
    watch: Callable[[str, str], None] = lambda model, outcome: None,
) -> Session:  # fmt: skip
    """Return a version's session, warm: one that an endpoint answers for, where `settings` name one.

    `watch` is that of RemoteSession. Raises NoSuchVersionError, and ArtifactError where its folder cannot be
    served or holds something else than was registered.
    """
    known = state.version(version)
    folder = folder_of(known.artifact)
    if settings.remote is None:
        session = Session(folder, settings)
    else:
        named = version if settings.remote_versions == "names" else str(number_of(state, version))
        session = RemoteSession(folder, settings, named, watch)
    if session.name != state.name or session.version != version:
        raise ArtifactError(
            f"{known.artifact} holds {session.name} {session.version}, and was registered as "
            f"{state.name} {version}"
        )
    if known.sha256 and session.description.sha256 != known.sha256:
        raise ArtifactError(f"{known.artifact} holds another file than the one that was registered")
    return session
