"""Errors of other people's libraries, translated in one place: one sentence, and what to do about it.

The command line and every process end through here, and what waits for a service says through here why it
waits. Nothing is imported for it: an error of a library that was never loaded cannot have been raised.
"""

from __future__ import annotations

import errno
import sys
from typing import Any

from schemas.errors import ContractError, DealerIQError

__all__ = [
    "CertificateError",
    "DiskFullError",
    "GraphRefusedError",
    "GraphUnavailableError",
    "KafkaRefusedError",
    "KafkaUnavailableError",
    "MessageRefusedError",
    "PortTakenError",
    "RedisFullError",
    "RedisRefusedError",
    "RedisUnavailableError",
    "WriterReplacedError",
    "translated",
]


class KafkaUnavailableError(DealerIQError):
    """No broker answered in time. Worth a retry with backoff."""

    remedy = "Check kafka.bootstrap and that the brokers are up; locally `dealeriq up` starts one."
    exit_code = 4


class KafkaRefusedError(DealerIQError):
    """A broker answered, and would not have us: wrong user, password, certificate, or no rights."""

    remedy = (
        "Check kafka.security_protocol, kafka.sasl_username, kafka.sasl_password and kafka.ssl_ca_location, "
        "and the user's rights on the cluster."
    )
    exit_code = 3


class MessageRefusedError(ContractError):
    """A broker does not take the message as it is: too large, or without a key on a compacted topic."""

    remedy = "Mend the message at its source; `dealeriq topics describe TOPIC` shows key and limits."


class WriterReplacedError(DealerIQError):
    """A newer writer of the same transactions is at work; what this one did not commit counts for nothing."""

    remedy = "Let one run at a time: when the other has ended, start again. Nothing was written twice."
    exit_code = 4


class RedisUnavailableError(DealerIQError):
    """Redis did not answer. Worth a retry with backoff."""

    remedy = "Check redis.url and that Redis is up; what waits for it goes on by itself, and nothing is lost."
    exit_code = 4


class RedisFullError(DealerIQError):
    """Redis takes no writes: its memory or its disk is full, or it is a replica."""

    remedy = (
        "Give it room (maxmemory, or its disk; DEALERIQ_REDIS__URL must name the primary): what waits for it "
        "goes on by itself, and nothing is lost."
    )
    exit_code = 4


class RedisRefusedError(DealerIQError):
    """Redis answered, and would not do it: wrong user, password, certificate, or no rights."""

    remedy = "Check redis.url, redis.username, redis.password and redis.ssl_ca_location."
    exit_code = 3


class GraphUnavailableError(DealerIQError):
    """Neo4j did not answer, or cannot do it now: it starts, has no room, or is busy."""

    remedy = "Check graph.url and that Neo4j is up; what waits for it goes on by itself, and nothing is lost."
    exit_code = 4


class GraphRefusedError(DealerIQError):
    """Neo4j answered, and would not do it: wrong user, password, database or address, or no rights."""

    remedy = "Check graph.url, graph.username, graph.password and graph.database, and the user's rights."
    exit_code = 3


class CertificateError(DealerIQError):
    """A certificate or key that a setting names cannot be read, or is none."""

    remedy = "Give that setting the path of a PEM file that this user may read."
    exit_code = 3


class DiskFullError(DealerIQError):
    """A file cannot be written because its disk, or this user's share of it, is full."""

    remedy = "Make room and start again: what was written before is kept."
    exit_code = 4


class PortTakenError(DealerIQError):
    """Another process listens on the port."""

    remedy = "Stop the other process, or give this one another port (DEALERIQ_METRICS_PORT, http.port)."
    exit_code = 3


_FULL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
_NO_ROOM = ("MISCONF", "OOM", "READONLY", "Errors writing", "maxmemory", "read only replica")
_NO_ENTRY = ("WRONGPASS", "NOAUTH", "NOPERM", "DENIED", "certificate", "SSL", "username-password")


def translated(error: BaseException) -> DealerIQError | None:
    """Return the error of ours that says the same; None for one that is no known trouble but a defect."""
    if isinstance(error, DealerIQError):
        return error
    if (kafka := sys.modules.get("confluent_kafka")) is not None and isinstance(error, kafka.KafkaException):
        return _of_kafka(kafka.KafkaError, error.args[0])
    if (redis := sys.modules.get("redis.exceptions")) is not None and isinstance(error, redis.RedisError):
        return _of_redis(redis, error)
    if (neo4j := sys.modules.get("neo4j.exceptions")) is not None and isinstance(
        error, neo4j.Neo4jError | neo4j.DriverError
    ):
        return _of_neo4j(neo4j, error)
    if isinstance(error, OSError):
        return _of_system(error)
    return None


def _of_kafka(kinds: Any, error: Any) -> DealerIQError:
    code, words = error.code(), error.str()
    if code in _refusals(kinds):
        return KafkaRefusedError(f"the Kafka brokers refuse us: {words}")
    if code in (kinds.MSG_SIZE_TOO_LARGE, kinds.INVALID_RECORD, kinds.INVALID_MSG):
        return MessageRefusedError(f"a message was refused by Kafka: {words}")
    if code == kinds._INVALID_ARG and "ssl" in words:
        return CertificateError(f"the certificates for Kafka cannot be used: {words}")
    if code in (kinds._FENCED, kinds.INVALID_PRODUCER_EPOCH, kinds.PRODUCER_FENCED):
        return WriterReplacedError(f"another writer took over: {words}")
    return KafkaUnavailableError(f"Kafka cannot do it now: {words}")


def _refusals(kinds: Any) -> frozenset[int]:
    names = (
        "_AUTHENTICATION", "_SSL", "SASL_AUTHENTICATION_FAILED", "TOPIC_AUTHORIZATION_FAILED",
        "GROUP_AUTHORIZATION_FAILED", "CLUSTER_AUTHORIZATION_FAILED", "TRANSACTIONAL_ID_AUTHORIZATION_FAILED",
        "UNSUPPORTED_SASL_MECHANISM", "SECURITY_DISABLED",
    )  # fmt: skip
    return frozenset(getattr(kinds, name) for name in names)


def _of_redis(redis: Any, error: BaseException) -> DealerIQError:
    words = str(error) or type(error).__name__
    if isinstance(error, redis.OutOfMemoryError | redis.ReadOnlyError) or any(
        sign in words for sign in _NO_ROOM
    ):
        return RedisFullError(f"Redis takes no writes: {words}")
    if isinstance(error, redis.AuthenticationError | redis.AuthorizationError | redis.NoPermissionError) or any(
        sign in words for sign in _NO_ENTRY
    ):
        return RedisRefusedError(f"Redis refuses us: {words}")
    if isinstance(error, redis.ConnectionError | redis.TimeoutError):
        return RedisUnavailableError(f"Redis does not answer: {words}")
    return RedisRefusedError(f"Redis answered with an error: {words}")


def _of_neo4j(neo4j: Any, error: BaseException) -> DealerIQError:
    words = str(error) or type(error).__name__
    if isinstance(error, neo4j.ClientError | neo4j.ConfigurationError):
        return GraphRefusedError(f"Neo4j refuses us: {words}")
    return GraphUnavailableError(f"Neo4j cannot do it now: {words}")


def _of_system(error: OSError) -> DealerIQError | None:
    where = f" at {error.filename}" if error.filename else ""
    if error.errno in _FULL:
        return DiskFullError(f"the disk is full{where}: {error.strerror}")
    if error.errno == errno.EADDRINUSE:
        return PortTakenError(f"a port is taken: {error.strerror}")
    return None
