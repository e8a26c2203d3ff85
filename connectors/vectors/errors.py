"""What can be wrong with a vector index, by what to do about it."""

from __future__ import annotations

from schemas.errors import DealerIQError

__all__ = ["IndexBusyError", "IndexDamagedError", "IndexUnavailableError", "WrongFormatError"]


class IndexUnavailableError(DealerIQError):
    """The index's server did not answer. Worth a retry with backoff."""

    remedy = "Check the index server's address and that it is up; what waits for it goes on by itself."
    exit_code = 4


class IndexBusyError(DealerIQError):
    """Another process owns the index's folder."""

    remedy = "Stop the other `search` process of this data folder, or give this one another search.folder."
    exit_code = 4


class IndexDamagedError(DealerIQError):
    """The index's files cannot be read. Nothing is lost: the topics hold all that was in it."""

    remedy = "Stop the process `search`, then `dealeriq index rebuild`: it is made again from the topics."
    exit_code = 7


class WrongFormatError(IndexDamagedError):
    """The index was made by another version, or for other kinds of vectors or encoders than are set."""
