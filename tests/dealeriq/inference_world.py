"""One inference process and a model of one test alone, for the tests of the protocol."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tritonclient.utils import InferenceServerException

from dealeriq.settings import Settings
from models.lifecycle_log import LifecycleLog
from models.runtime import Session
from tests.streams.scoring_model import INPUTS, folder


class World:
    """One inference process, and a model of this test alone with three versions."""

    def __init__(self, stack: Settings, root: Path) -> None:
        self.stack, self.root, self.model = stack, root, f"busy_{uuid.uuid4().hex[:8]}"
        self.folders = {}
        for seed in (1, 2, 3):
            where, told = folder(root / "versions", self.model, seed=seed)
            self.folders[told.version] = where
        self.v1, self.v2, self.v3 = self.folders
        self.sessions = {version: Session(where) for version, where in self.folders.items()}
        self.process: subprocess.Popen[bytes] | None = None
        self.url = self.grpc = ""
        self.ports: dict[str, str] = {}

    def start(self, **more: str) -> None:
        variables = os.environ | self.stack.environment() | {
            "DEALERIQ_DATA_DIR": str(self.root), "DEALERIQ_INFERENCE__PORT": "0",
            "DEALERIQ_INFERENCE__GRPC_PORT": "0", "DEALERIQ_INFERENCE__FOLLOW_S": "0.1",
            "DEALERIQ_METRICS_PORT": "0",
        } | more  # fmt: skip
        log = self.root / "inference.log"
        with log.open("wb") as out:
            command = [sys.executable, "-m", "dealeriq.processes", "inference"]
            self.process = subprocess.Popen(command, env=variables, stdout=out, stderr=out)
        for name in ("http", "grpc"):
            found = self.until(lambda name=name: re.search(rf"inference on {name}://(\S+)", log.read_text()))
            setattr(self, {"http": "url", "grpc": "grpc"}[name], found.group(1))

    def stop(self, how: int = signal.SIGTERM) -> int:
        process, self.process = self.process, None
        assert process is not None
        process.send_signal(how)
        return process.wait(60)

    def decide(self, version: str, stage: str) -> None:
        with LifecycleLog(self.stack.kafka, self.stack.registry) as log:
            log.catch_up()
            if version not in log.registry.state(self.model).versions:
                where = str(self.folders[version])
                log.write(
                    self.model, version, "registered", "a test", cause=uuid.uuid4().hex, reason="training",
                    artifact=where, sha256=self.sessions[version].description.sha256,
                )  # fmt: skip
            if stage != "registered":
                log.write(self.model, version, stage, "a test", cause=uuid.uuid4().hex, reason="gates")

    def until(self, done: Callable[[], Any], timeout_s: float = 120) -> Any:
        deadline = time.monotonic() + timeout_s
        while not (found := done()):
            said = (self.root / "inference.log").read_text()[-3_000:]
            assert self.process is None or self.process.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.05)
        return found

    def ready(self, client: Any, version: str = "") -> bool:
        try:
            return bool(client.is_model_ready(self.model, version))
        except InferenceServerException:
            return False


def vectors(rows: int, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    x = rng.gamma(2.0, 60.0, (rows, len(INPUTS))).astype(np.float32)
    x[rng.random(x.shape) < 0.1] = np.nan
    return x
