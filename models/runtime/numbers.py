"""Versions as numbers, for servers that know no others."""

from __future__ import annotations

from models.lifecycle import ModelState

__all__ = ["number_of"]


def number_of(state: ModelState, version: str) -> int:
    """Return a version's place in the order of registration, from 1: the same for every reader of the log.

    Raises NoSuchVersionError.
    """
    state.version(version)
    return list(state.versions).index(version) + 1
