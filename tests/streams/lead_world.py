"""A log of enriched chats and feedback, and the two views of leads: what their tests play in."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from score_world import CrashError, registry_of

from connectors.kafka import Producer
from features.plan import load
from models.artifact import Description, save, version_of
from models.leads import NAMES
from models.runtime import Session
from models.specs import spec
from models.training.online import OnlineLinear
from schemas.catalogue import topic
from schemas.codec import Decoder, Encoder
from streams.leads.scorer import LeadModels
from streams.leads.store import LeadStore, LearnerStore
from streams.leads.weights import Weights
from streams.views.lead_learner import LeadLearner
from streams.views.lead_view import LeadView
from tests.lake_tables import FakeMessage

__all__ = ["CrashError", "Log", "World", "lead_model"]

NUMBERS = {"chats.enriched": 1, "feedback": 2, "scores": 3, "leads.labelled": 4}


def fetch(number: int) -> Any:
    """What a registry would say."""
    return topic(next(name for name, each in NUMBERS.items() if each == number)).schema


def lead_model(root: Path, name: str = "lead_score", **more: Any) -> tuple[Path, Description]:
    """Write a version of the model of leads, calibrated as it came; return its folder and description."""
    declared = spec("lead_score")
    onnx = OnlineLinear(len(NAMES)).to_onnx()
    given: dict[str, Any] = {
        "version": version_of(1_500_000_000_000, onnx, declared.inputs, 1),
        "spec_version": 1, "entity": declared.entity, "subject_type": declared.subject_type,
        "inputs": declared.inputs, "outputs": declared.outputs, "score": declared.score,
        "sha256": hashlib.sha256(onnx).hexdigest(), "as_of_ms": 1_500_000_000_000,
        "reference": (0.2,) * len(declared.inputs), "rules": declared.rules,
    }  # fmt: skip
    told = Description(name, **given | more)
    return save(root / name / told.version, told, onnx), told


class Log:
    """Topics that outlive a crash of whoever writes them."""

    def __init__(self) -> None:
        self.topics: dict[str, list[FakeMessage]] = {name: [] for name in NUMBERS}
        self.crash = False
        self._queued: list[tuple[str, bytes]] = []

    def send(self, name: str, records: Sequence[dict[str, Any] | bytes | None]) -> None:
        encode = Encoder(name, NUMBERS[name]).encode
        for each in records:
            value = encode(each) if isinstance(each, dict) else each
            self.topics[name].append(FakeMessage(name, 0, len(self.topics[name]), value))

    def produce(self, name: str, value: bytes, **_: Any) -> None:
        self._queued.append((name, value))

    def flush(self, _timeout: float) -> int:
        for name, value in self._queued:
            self.topics[name].append(FakeMessage(name, 0, len(self.topics[name]), value))
        self._queued = []
        if self.crash:
            self.crash = False
            raise CrashError
        return 0

    def records(self, name: str) -> list[dict[str, Any]]:
        decode = Decoder.of_topic(name, fetch).decode
        return [decode(each.value()) for each in self.topics[name]]


class World:
    """Both views of one project over one log."""

    def __init__(self, client: Any, log: Log, project: str, folder: Path | None = None) -> None:
        self.client, self.log, self.project = client, log, project
        self.models = LeadModels(load(project=project))
        if folder is not None:
            session = Session(folder)
            self.models.refresh(registry_of(session.description, folder))
        self.restart()

    def restart(self) -> None:
        weights, writer = Weights(), self.log
        self.learner = LeadLearner(LearnerStore(self.client, self.project), fetch, weights)
        self.view = LeadView(
            LeadStore(self.client, self.project, 90.0), self.models, weights, _as_producer(writer), fetch,
            lambda: {name: NUMBERS[name] for name in ("scores", "leads.labelled")},
        )  # fmt: skip
        self.at = dict.fromkeys(NUMBERS, 0)
        for (name, _), offset in (*self.learner.positions().items(), *self.view.positions().items()):
            self.at[name] = offset

    def fold(self, name: str, most: int = 10_000) -> None:
        """Let the view of a topic take the next messages of it."""
        batch = self.log.topics[name][self.at[name] : self.at[name] + most]
        if batch:
            (self.learner if name == "leads.labelled" else self.view).apply(batch)
            self.at[name] += len(batch)

    def rest(self) -> None:
        """Take everything in."""
        for name in ("chats.enriched", "feedback", "leads.labelled"):
            self.fold(name)

    def learnt(self) -> dict[bytes, Any]:
        """All that the learner keeps, byte for byte, by key without the project."""
        found: dict[bytes, Any] = {}
        mark = f"{self.project}:".encode()
        for key in self.client.scan_iter(f"{self.project}:*"):
            kind = key.removeprefix(mark)
            if kind in (b"lead-model", b"lead-said", b"position:lead-learner"):
                found[kind] = self.client.hgetall(key)
            elif kind == b"lead-answers":
                found[kind] = self.client.lrange(key, 0, -1)
        return found


def _as_producer(log: Any) -> Producer:
    return log  # type: ignore[no-any-return]
