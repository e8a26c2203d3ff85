"""Kafka and Redis on a disk that fills up, and gets room again: `python full_disk.py FOLDER`; prints JSON.

The folder is a small disk of its own (the test mounts it), so that nothing else on the machine suffers.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis
from redis.exceptions import RedisError

from connectors.errors import translated
from connectors.kafka import consumer, ensure_topics, producer
from dealeriq.runtime import Supervisor
from dealeriq.settings import load

PATIENCE_S = 240.0


def eventually(seen: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (found := seen()):
        if time.monotonic() > deadline:
            raise SystemExit(f"not in time: {what}")
        time.sleep(0.2)
    return found


def fill(file: Path) -> None:
    """Write until nothing more fits."""
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as out:
        while True:
            out.write(bytes(65_536))
    with contextlib.suppress(OSError), file.open("ab", buffering=0) as out:
        while True:
            out.write(b"x")


def refusal(store: redis.Redis) -> str | None:
    """What we say when Redis takes no write; None while it does."""
    try:
        store.set("filler", os.urandom(65_536))
    except RedisError as failure:
        known = translated(failure)
        return known.told if known else repr(failure)
    return None


def up(folder: Path) -> subprocess.CompletedProcess[str]:
    """`dealeriq up` with its data on the full disk."""
    return subprocess.run(
        [sys.executable, "-m", "dealeriq", "up", "redis", "--exit"],
        env={**os.environ, "DEALERIQ_DATA_DIR": str(folder)},
        capture_output=True, text=True, timeout=PATIENCE_S,
    )  # fmt: skip


def main(folder: Path) -> dict[str, Any]:
    told: list[str] = []
    data = folder / "data"
    with Supervisor(
        load({}), ("kafka", "redis"), data, prefer_default_ports=False, progress=told.append
    ) as supervisor:
        settings = supervisor.settings
        ensure_topics(settings.kafka, ["promotions"])
        store = redis.Redis.from_url(settings.redis.address)
        store.set("kept", "before")
        writer = producer(settings.kafka, log_level=0)
        sent = [f"{number}-".encode() + bytes(1_000) for number in range(600)]
        for value in sent[:200]:
            writer.produce("promotions", value, key=b"d")
        assert writer.flush(60) == 0
        fill(folder / "filler")
        redis_said = eventually(lambda: refusal(store), "Redis refuses writes")
        new_run = up(folder / "another")
        for value in sent[200:]:
            writer.produce("promotions", value, key=b"d")
        full = eventually(lambda: [line for line in told if "is full" in line], "the supervisor says why")
        (folder / "filler").unlink()
        left = writer.flush(PATIENCE_S)
        eventually(lambda: refusal(store) is None, "Redis takes writes again")
        reader = consumer(settings.kafka, "full-disk", log_level=0)
        reader.subscribe(["promotions"])
        found: list[bytes] = []
        deadline = time.monotonic() + PATIENCE_S
        while len(found) < len(sent) and time.monotonic() < deadline:
            found += [each.value() for each in reader.consume(500, 0.5) if each.error() is None]
        reader.close()
        kept = store.get("kept")
    return {
        "supervisor": full[0], "redis": redis_said,
        "new_run": [new_run.returncode, new_run.stdout, new_run.stderr],
        "unsent": left, "complete": found == sent, "kept": kept.decode() if kept else None,
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
