"""The log of every process and command: a line an event, on stderr: what a command prints stays its own."""

from __future__ import annotations

import sys
from typing import Any

import structlog

__all__ = ["get_logger"]


def get_logger(name: str = "dealeriq") -> Any:
    """Return a logger whose events carry `name`, and what else they are given, as fields."""
    return structlog.get_logger(logger_name=name)


def _to_stderr(*_names: Any) -> structlog.PrintLogger:
    # Asked for anew by each event: whoever redirects stderr gets what is logged from then on.
    return structlog.PrintLogger(sys.stderr)


structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        # A traceback with the values of its variables would tell what customers wrote, and secrets.
        structlog.dev.ConsoleRenderer(
            colors=sys.stderr is not None and sys.stderr.isatty(),
            exception_formatter=structlog.dev.plain_traceback,
        ),
    ],
    logger_factory=_to_stderr,
)
