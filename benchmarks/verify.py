"""A full and a sampled verify of the year of orders, and what HTTP reads feel of it."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.contract import Claim, Outcome, middle
from dealeriq.demo.progress import settle
from dealeriq.runtime import Supervisor
from dealeriq.settings import Settings, load
from dealeriq.system import SERVICES, System

__all__ = ["measure"]

_HOW = """The carried year's orders are played through the whole system; then `dealeriq verify` runs as a
command of its own: all rows with every tile and feature, and samples of {dealers} dealers. Reads are put on the
HTTP service ({connections} connections) for {seconds:g} s without and with a `--gentle` verify of a sample
beside them, as the scheduled `verifier` runs it, {repeats} times in turn; it goes on when they end."""
_WHY_SAMPLE = (
    "The sample's events come from the lake, and what came since from the topic. Tried before: reading the "
    "whole topic, 9 µs a record (23 s). What is left is the command's start, and two fifths of all events: "
    "200 of 457 dealers, and 200 products with each."
)
_WHY_READS = (
    "It runs on one thread, pauses between parts and is as nice as a process can be; on two cores that the "
    "readers fill, a turn of its own still keeps one of them waiting."
)
_WHY_SLOW = (
    "The topic is read whole, by one consumer in Python, on cores shared with the broker and with others."
)
_CONNECTIONS = 4


def measure(
    short: bool = False, orders: str = "", dealers: str = "200", seconds: str = "", repeats: str = ""
) -> Outcome:
    """Play `orders` (all of the year by default), verify twice each way, then read with and without it."""
    lines = int(orders) if orders else 20_000 if short else None
    times, lasts = int(repeats or (1 if short else 3)), float(seconds or (2 if short else 8))
    settings = load(running=False)
    settings.demo.orders, settings.demo.speed, settings.demo.topics = lines, "max", ["orders"]
    with (
        tempfile.TemporaryDirectory(prefix="dealeriq-bench-") as folder,
        Supervisor(settings, SERVICES, Path(folder), prefer_default_ports=False) as supervisor,
    ):
        system = System(supervisor, clock="event")
        system.start()
        system.start_process("player", once=True)
        while supervisor.child("player").state not in ("done", "failed"):
            time.sleep(0.2)
        settle(system, lambda line: print(line, file=sys.stderr, flush=True))
        whole = [_verify(supervisor.settings) for _ in range(1 if short else 2)]
        some = [_verify(supervisor.settings, "--sample", dealers) for _ in range(1 if short else 2)]
        quiet, beside, gentle_s = [], [], []
        for _ in range(times):
            quiet.append(_read(supervisor.settings, lasts))
            began = time.monotonic()
            running = _start(supervisor.settings, "--sample", dealers, "--gentle")
            beside.append(_read(supervisor.settings, lasts))
            running.wait(600)
            gentle_s.append(round(time.monotonic() - began, 2))
    findings = [each["counts"] for each in (*whole, *some)]
    if any(findings):
        raise RuntimeError(f"verify found {findings}")
    full_s, sample_s = min(each["wall_s"] for each in whole), min(each["wall_s"] for each in some)
    slower = middle([b["p99_ms"] / q["p99_ms"] for q, b in zip(quiet, beside, strict=True)])
    p99 = [each["p99_ms"] for each in (*quiet, *beside)]
    claims = [
        Claim("full verify of the year", full_s, "s", 60, at_most=True, why=_WHY_SLOW),
        Claim(f"verify of {dealers} dealers", sample_s, "s", 5, at_most=True, why=_WHY_SAMPLE),
        Claim(
            "p99 of HTTP reads beside a gentle verify", round(slower, 2), "×", 1.5, at_most=True, why=_WHY_READS
        ),
    ]
    table = [
        {
            "verify": name, "seconds": each["wall_s"], "inside": each["seconds"], "rows": each["entities"],
            "tiles": each["tiles"], "values": each["values"], "findings": sum(each["counts"].values()),
        }
        for name, runs in (("full", whole), (f"{dealers} dealers", some))
        for each in runs
    ]  # fmt: skip
    figures = {
        "records": whole[0]["topics"]["orders"]["records"],
        "timings_s": [each["timings"] for each in (*whole, *some)],
        "reads": {"quiet": quiet, "beside": beside, "p99_ms": [min(p99), max(p99)]},
        "gentle_s": gentle_s,
    }
    how = _HOW.format(dealers=dealers, connections=_CONNECTIONS, seconds=lasts, repeats=times)
    return Outcome(how, claims if lines is None else (), table, figures)


def _start(settings: Settings, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "dealeriq", "verify", "--json", *options]
    environment = os.environ | settings.environment()
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session="--gentle" in options
    )


def _verify(settings: Settings, *options: str) -> dict[str, Any]:
    began = time.monotonic()
    out, _ = _start(settings, *options).communicate(timeout=900)
    found: dict[str, Any] = json.loads(out)
    return found | {"wall_s": round(time.monotonic() - began, 2)}


def _read(settings: Settings, seconds: float) -> dict[str, Any]:
    """Put load on the HTTP service: one dealer a request, the dealers in random order."""
    dealers = list(range(300, 460))
    random.shuffle(dealers)
    given = [{"url": f"{settings.http.url}/v1/dealers/{dealer}/features"} for dealer in dealers]
    command = [sys.executable, "-m", "benchmarks.load", "--connections", str(_CONNECTIONS)]
    command += ["--seconds", str(seconds)]
    done = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result
