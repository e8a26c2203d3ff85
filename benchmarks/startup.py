"""Set-up of a fresh clone with empty caches, and a start with everything cached to the first feature."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil

from benchmarks.contract import Claim, Outcome
from benchmarks.peer import ROOT
from benchmarks.peers import VIEW

__all__ = ["measure"]

_HOW = """A clone of the last commit in an empty folder, with an empty home: no package, tool or jar is cached.
*set-up* is `./run config`: uv, the Python set and every jar are downloaded and unpacked. *start* is
`./run demo` in that clone, everything cached, on an empty data folder, twice (of the first start Java keeps the
classes that it loaded; the claim is about the second): from the command to the first answer of
the HTTP service that holds a feature of a dealer. Memory is that of the command and all its children then, with
pages that several share counted once."""
_WHY = "Python and the Java runtimes start side by side on two cores that are shared with others."
_LONGEST_S = 600.0


def measure(short: bool = False) -> Outcome:
    """Set up and start in a clone of its own; `short` starts in this folder and sets nothing up."""
    with tempfile.TemporaryDirectory(prefix="dealeriq-bench-") as name:
        folder = Path(name)
        environment = {each: value for each, value in os.environ.items() if not each.startswith("DEALERIQ_")}
        clone, set_up_s = ROOT, None
        if not short:
            clone = folder / "clone"
            subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
            (folder / "home").mkdir()
            hidden = ("XDG_CACHE_HOME", "UV_CACHE_DIR", "JAVA_HOME", "VIRTUAL_ENV", "PYTHONPATH")
            environment = {each: value for each, value in environment.items() if each not in hidden}
            environment["HOME"] = str(folder / "home")
            began = time.monotonic()
            _run(clone, environment, "config")
            set_up_s = time.monotonic() - began
        starts = {}
        for which in ("first", "second"):
            environment["DEALERIQ_DATA_DIR"] = str(folder / which)
            starts[which] = _start(clone, environment, folder)
        start_s, resident_gb = starts["second"]
    rows: list[dict[str, Any]] = []
    claims: list[Claim] = []
    if set_up_s is not None:
        rows.append({"": "set-up, nothing cached", "seconds": round(set_up_s, 1), "resident, GB": ""})
        claims.append(Claim("set-up from nothing", round(set_up_s, 1), "s", 180, at_most=True, why=_WHY))
    for which, (seconds, gb) in starts.items():
        name = f"{which} start to the first feature"
        rows.append({"": name, "seconds": round(seconds, 1), "resident, GB": round(gb, 2)})
    claims.append(Claim("start to the first feature", round(start_s, 1), "s", 30, at_most=True, why=_WHY))
    claims.append(Claim("the whole stack, resident", round(resident_gb, 2), "GB", 3, at_most=True))
    return Outcome(_HOW, () if short else claims, rows)


def _run(clone: Path, environment: dict[str, str], *arguments: str) -> None:
    done = subprocess.run(
        ["./run", *arguments], cwd=clone, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"./run {' '.join(arguments)} ended with {done.returncode}: {done.stderr[-2000:]}")


def _start(clone: Path, environment: dict[str, str], folder: Path) -> tuple[float, float]:
    """Return the seconds from the command to the first feature, and the memory of everything then, GB."""
    log = folder / "demo.log"
    began = time.monotonic()
    with log.open("w") as out:
        demo = psutil.Popen(
            ["./run", "demo", "--speed", "1000"], cwd=clone, env=environment, stdout=out, stderr=out
        )
    try:
        while not _readable(Path(environment["DEALERIQ_DATA_DIR"])):
            if demo.poll() is not None or time.monotonic() - began > _LONGEST_S:
                raise RuntimeError(f"no feature became readable: {log.read_text('utf-8')[-2000:]}")
            time.sleep(0.1)
        seconds = time.monotonic() - began
        family = [demo, *demo.children(recursive=True)]
        return seconds, sum(_share(each) for each in family) / 1e9
    finally:
        demo.terminate()
        demo.wait(60)


def _readable(data: Path) -> bool:
    """Whether the HTTP service answers a feature of any dealer."""
    try:
        url = json.loads((data / "running.json").read_text())["http"]["url"]
        with urllib.request.urlopen(f"{url}/v1/features/{VIEW}/{_FIRST_DEALER}", timeout=5) as answer:
            return bool(json.load(answer)["features"][VIEW]["count_90d"])
    except (OSError, ValueError, KeyError):
        return False


def _share(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.NoSuchProcess:
        return 0


_FIRST_DEALER = "330"
"""The dealer of the first order line of the carried year."""
