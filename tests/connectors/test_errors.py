"""Foreign errors become ours: each kind that a library can raise has a sentence and a remedy."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import neo4j.exceptions
import pytest
import redis.exceptions
from confluent_kafka import KafkaError, KafkaException

from connectors.errors import (
    CertificateError,
    DiskFullError,
    KafkaRefusedError,
    KafkaUnavailableError,
    MessageRefusedError,
    PortTakenError,
    RedisFullError,
    RedisRefusedError,
    RedisUnavailableError,
    WriterReplacedError,
    translated,
)
from schemas.errors import DealerIQError


def below(kind: type[Exception]) -> Iterator[type[Exception]]:
    yield kind
    for each in kind.__subclasses__():
        yield from below(each)


def translations(*roots: type[Exception]) -> Iterator[tuple[Exception, DealerIQError]]:
    """Every kind below some roots, as raised and as ours; each has what to do."""
    kinds = [kind for root in roots for kind in below(root)]
    assert len(kinds) > 20
    for kind in kinds:
        error = kind.__new__(kind)
        Exception.__init__(error, "what it says")
        ours = translated(error)
        assert ours is not None, kind
        assert ours.remedy
        yield error, ours


def test_every_error_of_redis_is_known() -> None:
    for error, ours in translations(redis.exceptions.RedisError):
        assert ours.exit_code in (3, 4), error


def test_every_error_of_neo4j_is_known() -> None:
    for error, ours in translations(neo4j.exceptions.Neo4jError, neo4j.exceptions.DriverError):
        wrong = isinstance(error, neo4j.exceptions.ClientError | neo4j.exceptions.ConfigurationError)
        assert ours.exit_code == (3 if wrong else 4), error


def test_every_error_of_kafka_is_known() -> None:
    names = [name for name in vars(KafkaError) if name.lstrip("_").isupper()]
    assert len(names) > 100
    for name in names:
        ours = translated(KafkaException(KafkaError(getattr(KafkaError, name))))
        assert ours is not None, name
        assert ours.remedy


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (KafkaException(KafkaError(KafkaError._FENCED)), WriterReplacedError),
        (
            redis.exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."),
            RedisFullError,
        ),
        (
            redis.exceptions.ResponseError("MISCONF Errors writing to the AOF file: No space left"),
            RedisFullError,
        ),
        (redis.exceptions.ReadOnlyError("You can't write against a read only replica."), RedisFullError),
        (redis.exceptions.AuthenticationError("invalid username-password pair"), RedisRefusedError),
        (redis.exceptions.ResponseError("NOAUTH Authentication required."), RedisRefusedError),
        (redis.exceptions.ConnectionError("Error 111 connecting to 127.0.0.1:1."), RedisUnavailableError),
        (redis.exceptions.ConnectionError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate"), RedisRefusedError),
        (KafkaException(KafkaError(KafkaError._AUTHENTICATION)), KafkaRefusedError),
        (KafkaException(KafkaError(KafkaError._SSL)), KafkaRefusedError),
        (KafkaException(KafkaError(KafkaError._TRANSPORT)), KafkaUnavailableError),
        (KafkaException(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)), MessageRefusedError),
        (KafkaException(KafkaError(KafkaError._INVALID_ARG, "ssl.ca.pem failed")), CertificateError),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "file"), DiskFullError),
        (OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE)), PortTakenError),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_the_remedy_fits_the_trouble(error: Exception, kind: type[DealerIQError]) -> None:
    ours = translated(error)
    assert type(ours) is kind
    assert ours.told.startswith(str(ours))
    assert ours.told.endswith(".")


def test_a_defect_is_not_dressed_up() -> None:
    assert translated(ValueError("a bug")) is None
    assert translated(FileNotFoundError(errno.ENOENT, "no such file")) is None
