"""What can be wrong with a source; the source's own sentence is the message."""

from __future__ import annotations

from schemas.errors import DealerIQError

__all__ = ["NotASourceError", "SourceConfigError", "SourceFailedError", "SourceUnavailableError"]


class SourceFailedError(DealerIQError):
    """A source ended before it was done. What it confirmed with a state is in the topic, the rest is not."""

    remedy = "Start the connection again: it goes on from the last state, and nothing is repeated."
    exit_code = 1


class SourceConfigError(SourceFailedError):
    """A source refuses its configuration, or has no stream of the name. Nothing was produced."""

    remedy = "Mend it; `--spec` shows what the source wants, `--streams` what it offers."
    exit_code = 3


class SourceUnavailableError(SourceFailedError):
    """A source says that what it reads from is not there for the moment. Worth a retry."""

    exit_code = 4


class NotASourceError(SourceFailedError):
    """The command cannot be run, or does not speak Airbyte's protocol."""

    remedy = "Say the name of a locked source, or a command that takes spec, check, discover and read."
    exit_code = 2
