"""Where a running local system is found: its addresses, in its data folder, while it runs.

The supervisor writes them when its services have answered; commands take from there what neither the
environment nor the settings file gives. A system that has ended, in whatever way, no longer holds the folder's
lock, and its file is then passed over.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
from pathlib import Path
from typing import Any

__all__ = ["ADDRESSES", "LOCK", "found", "publish", "withdraw"]

LOCK = "run.lock"
"""File in the data folder that a running system holds locked."""

_FILE = "running.json"

ADDRESSES = (
    "kafka.bootstrap",
    "registry.url",
    "redis.url",
    "flink.url",
    "flink.lib_dir",
    "flink.checkpoint_dir",
    "flink.savepoint_dir",
    "connect.url",
    "graph.url",
    "hybrid.enabled",
    "http.url",
    "http.port",
    "http.clock",
    "search.url",
)
"""The settings that a running system makes known."""


def publish(data_dir: Path, settings: Any) -> None:
    """Write the addresses of a system; those that are not known yet are left out."""
    content: dict[str, dict[str, Any]] = {}
    for name in ADDRESSES:
        section, _, key = name.partition(".")
        value = getattr(getattr(settings, section), key)
        if value is not None:
            content.setdefault(section, {})[key] = value
    fresh = data_dir / f".{_FILE}"
    with contextlib.suppress(OSError):  # a full disk has its own words; the system itself needs no such file
        fresh.touch(mode=0o600)  # a URL may carry a password
        fresh.write_text(json.dumps(content))
        fresh.replace(data_dir / _FILE)


def withdraw(data_dir: Path) -> None:
    """Remove what `publish` wrote."""
    with contextlib.suppress(OSError):
        (data_dir / _FILE).unlink()


def found(data_dir: Path) -> dict[str, dict[str, Any]]:
    """Return section -> setting -> value of the system that runs on this folder; empty where none does."""
    try:
        content = json.loads((data_dir / _FILE).read_bytes())
        with (data_dir / LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return content if isinstance(content, dict) else {}
    except (OSError, ValueError):
        return {}
    return {}  # nobody holds the lock: what is written there is of a run that is over
