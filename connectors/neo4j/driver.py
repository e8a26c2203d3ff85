"""Drivers for Neo4j, as the settings say; nothing is sent before the first query."""

from __future__ import annotations

from typing import Any

from neo4j import AsyncDriver, AsyncGraphDatabase, Driver, GraphDatabase
from neo4j.exceptions import (
    ConnectionPoolError,
    DatabaseError,
    ResultError,
    ServiceUnavailable,
    SessionExpired,
    TransactionError,
    TransientError,
)

from connectors.neo4j.settings import GraphSettings

__all__ = ["AWAY", "connect", "connect_async"]

AWAY: tuple[type[Exception], ...] = (
    ServiceUnavailable, SessionExpired, ConnectionPoolError, TransactionError, ResultError, TransientError,
    DatabaseError,
)  # fmt: skip
"""What is raised where a server is down, starting, busy or out of room: worth another try."""


def connect(settings: GraphSettings) -> Driver:
    """Return a driver; the caller closes it. Raises AddressNotSetError."""
    return GraphDatabase.driver(settings.address, **_options(settings))


def connect_async(settings: GraphSettings) -> AsyncDriver:
    """Return a driver for an event loop; the caller closes it. Raises AddressNotSetError."""
    return AsyncGraphDatabase.driver(settings.address, **_options(settings))


def _options(settings: GraphSettings) -> dict[str, Any]:
    password = "" if settings.password is None else settings.password.get_secret_value()
    return {
        "auth": None if settings.username is None else (settings.username, password),
        "connection_timeout": settings.timeout_s,
        "connection_acquisition_timeout": settings.timeout_s + 5,
        # A server that was killed leaves connections behind that look alive.
        "liveness_check_timeout": 5.0,
        "keep_alive": True,
        "notifications_min_severity": "OFF",
    }
