"""What every writer of transactions needs: to try again, and to know when a newer one took its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from confluent_kafka import KafkaError, KafkaException, Producer

__all__ = ["is_fenced", "persistently"]

T = TypeVar("T")

_FENCED = (KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED)
_WITHOUT_REASON = (KafkaError._FATAL, KafkaError._STATE, KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT)
_ABORT_S = 30.0


def persistently(call: Callable[[], T], attempts: int = 4) -> T:
    """Return what `call` returns; one that may be repeated goes on where it was, so nothing is lost by that.

    Raises KafkaException.
    """
    for _ in range(attempts - 1):
        try:
            return call()
        except KafkaException as error:
            if not error.args[0].retriable():
                raise
    return call()


def is_fenced(writer: Producer, error: KafkaException) -> bool:
    """Return whether `error` of `writer` means that a newer writer of its transactional id is at work.

    `produce` and the report of a delivery may tell only that something is fatally wrong; what it is comes
    from aborting, which is all that is left to do then.
    """
    code = error.args[0].code()
    if code in _WITHOUT_REASON:
        try:
            writer.abort_transaction(_ABORT_S)
        except KafkaException as told:
            code = told.args[0].code()
    return code in _FENCED
