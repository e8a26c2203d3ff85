"""The one root of errors, and the errors of contracts.

A class stands for a remedy: callers catch by what they can do about it. The command line prints `str(error)`
and `remedy`, and exits with `exit_code`.

Exit codes: 1 anything else, 2 usage, 3 settings, 4 a service is not there (retry), 5 a contract is broken,
6 input holds bad rows, 7 stores disagree with the log.
"""

from __future__ import annotations

__all__ = [
    "ContractError",
    "DealerIQError",
    "EncodeError",
    "IncompatibleSchemaError",
    "UndecodableError",
    "UnknownTopicError",
]


class DealerIQError(Exception):
    """Any error of DealerIQ.

    The message says in one sentence what came and what is allowed; `remedy` says what to do. A subclass sets
    both defaults, and an instance may give its own remedy.
    """

    remedy: str = ""
    exit_code: int = 1

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        if remedy is not None:
            self.remedy = remedy

    @property
    def told(self) -> str:
        """What people are told: the message and what to do, as sentences."""
        remedy = self.remedy[:1].upper() + self.remedy[1:]
        return " ".join(_sentence(part) for part in (str(self), remedy) if part)


class ContractError(DealerIQError):
    """Data, a topic or a schema is not as the catalogue declares it."""

    remedy = "Compare with `dealeriq topics describe TOPIC`."
    exit_code = 5


class UnknownTopicError(ContractError):
    """A topic name that the catalogue does not hold."""

    remedy = "List the topics with `dealeriq topics ls`."


class EncodeError(ContractError):
    """A record cannot be written with its topic's schema. Nothing was produced."""

    remedy = "Mend the record at its source; the schema is shown by `dealeriq topics describe TOPIC`."


class UndecodableError(ContractError):
    """A message can never be read, however often it is tried: poison.

    Remedy: send it to the topic's dead-letter topic and go on. A registry that cannot be reached raises
    `connectors.registry.RegistryUnavailableError` instead: that one is worth a retry.
    """

    remedy = "It is kept in the dead-letter topic; see `dealeriq dlq show TOPIC`."


class IncompatibleSchemaError(ContractError):
    """A changed schema cannot read what older versions wrote."""

    remedy = "Undo the change, or give a new field a default; then `dealeriq schema check` again."


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."
