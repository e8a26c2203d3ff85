"""Python environments of their own, for programs whose packages would not go with ours.

Each has a lock file with hashes in requirements/ and is installed beside ours on first use, as `.venv-NAME`.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from dealeriq.runtime.jars import cache_dir
from schemas.errors import DealerIQError

__all__ = ["EnvironmentUnavailableError", "ensure_environment"]

_HOUSE = Path(__file__).parents[2]


class EnvironmentUnavailableError(DealerIQError):
    """An environment could not be installed. What was fetched is kept for the next try."""

    remedy = "Check the network, the package index and the disk, then start again."
    exit_code = 4


def ensure_environment(
    name: str, progress: Callable[[str], None] = lambda line: None, house: Path = _HOUSE
) -> Path:
    """Return the folder of the environment's programs; installs it when its lock changed or it is not there.

    It stands beside ours, or in the user's cache when that folder is not to be written.

    Raises:
        EnvironmentUnavailableError: no lock of that name, no index, or packages that are not those locked.
    """
    lock = house / "requirements" / f"{name}.lock"
    if not lock.exists():
        raise EnvironmentUnavailableError(f"{lock} is missing", remedy="Restore it from version control.")
    stamp = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()
    folder = house / f".venv-{name}"
    if not os.access(house, os.W_OK):
        folder = cache_dir() / "environments" / f"{name}-{stamp[:12]}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        cache_dir().mkdir(parents=True, exist_ok=True)
        mark = hashlib.sha256(str(folder).encode()).hexdigest()[:12]
        with (cache_dir() / f"environment-{mark}.lock").open("w") as guard:
            fcntl.flock(guard, fcntl.LOCK_EX)
            done = folder / ".dealeriq"
            if not (done.exists() and done.read_text() == stamp):
                progress(f"installing the {name} environment (once; a minute or two)")
                shutil.rmtree(folder, ignore_errors=True)
                _install(folder, lock)
                done.write_text(stamp)
    except OSError as failure:
        raise EnvironmentUnavailableError(f"the {name} environment cannot be written: {failure}") from failure
    return folder / "bin"


def _install(folder: Path, lock: Path) -> None:
    uv = _uv()
    python = folder / "bin" / "python"
    if uv is not None:
        steps = [
            [uv, "venv", "--quiet", "--python", sys.executable, str(folder)],
            [uv, "pip", "sync", "--quiet", "--require-hashes", "--python", str(python), str(lock)],
        ]
    else:
        steps = [
            [sys.executable, "-m", "venv", str(folder)],
            [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "-r", str(lock)],
        ]
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            words = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
            raise EnvironmentUnavailableError(f"{folder.name} could not be installed: {words[-1][:300]}")


def _uv() -> str | None:
    """The uv that the set-up fetched, or one on the path."""
    ours = sorted(cache_dir().glob("tools-*/bin/uv"), key=lambda path: path.stat().st_mtime)
    return str(ours[-1]) if ours else shutil.which("uv")
