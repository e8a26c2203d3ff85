"""Which versions are served: the champion of each model and its challenger, as the lifecycle's log says.

A version is loaded and warmed beside the one that answers, and takes its place in one assignment between two
batches. A version that cannot be loaded takes nobody's place: the last champion goes on, and it is said.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from prometheus_client import Counter, Gauge

from connectors.log import get_logger
from features.plan import Plan
from models.artifact import Description
from models.lifecycle import Lifecycle, ModelState
from models.runtime import RuntimeSettings, Session, open_registered
from schemas.errors import DealerIQError
from streams.metrics import REGISTRY, StageMeters
from streams.scoring.following import follow
from streams.scoring.prices import PriceScorer
from streams.scoring.scorer import Scorer

__all__ = [
    "FALLBACK",
    "SERVING",
    "SWAPS",
    "FollowedModels",
    "Pair",
    "Served",
    "ServedModels",
    "Serving",
    "tell_swap",
]

_log = get_logger(__name__)
_AGAIN_S = 30.0  # until a version that did not load is tried again: its folder may be on its way

SERVING = Gauge(
    "dealeriq_model_served",
    "1 for each version that scores now",
    ["model", "version", "role"],
    registry=REGISTRY,
)
SWAPS = Counter("dealeriq_model_swaps", "Versions that took another's place", ["model"], registry=REGISTRY)
SHARE = Gauge(
    "dealeriq_model_canary_share", "Share of subjects that the challenger's scores count for.", ["model"],
    registry=REGISTRY,
)  # fmt: skip
FALLBACK = Gauge(
    "dealeriq_model_fallback", "1 where the champion could not be loaded and another answers", ["model"],
    registry=REGISTRY,
)  # fmt: skip
REMOTE = Counter(
    "dealeriq_model_remote_batches",
    "Batches for an endpoint (runtime.remote), by who answered: remote, local, or refused where nobody did",
    ["model", "outcome"], registry=REGISTRY,
)  # fmt: skip


def tell_swap(model: str, before: str | None, now: str) -> None:
    """Say in the metrics that a champion took another's place, or came where there was none."""
    if before is not None:
        SERVING.labels(model, before, "champion").set(0)
    SERVING.labels(model, now, "champion").set(1)
    SWAPS.labels(model).inc()
    FALLBACK.labels(model).set(0)


class Serving(Protocol):
    """One version as a stage of the stream runs it."""

    shadow: bool
    decided_at: int
    share: float
    views: Mapping[str, Sequence[str]]

    def __init__(
        self, session: Session, plan: Plan, *, shadow: bool = False, decided_at: int = -1, share: float = 0.0
    ) -> None: ...

    @staticmethod
    def serves(told: Description) -> bool:
        """Whether the stage is about such a model; those of others are passed over."""

    @property
    def model(self) -> str:
        """The model's name."""

    @property
    def version(self) -> str:
        """The model's version."""


S = TypeVar("S", bound=Serving)


@dataclass(frozen=True)
class Pair(Generic[S]):
    """The versions of one model that score: `champion` and, beside it, `challenger` in shadow.

    `decision` is the id of the record in `model.lifecycle` that made the champion what it is.
    """

    champion: S
    challenger: S | None = None
    decision: str = ""

    @property
    def scorers(self) -> tuple[S, ...]:
        """Both, the champion first."""
        return (self.champion,) if self.challenger is None else (self.champion, self.challenger)

    @property
    def features(self) -> dict[str, list[str]]:
        """The features of each view that either version reads."""
        found: dict[str, list[str]] = {}
        for scorer in self.scorers:
            for view, names in scorer.views.items():
                found[view] = list(dict.fromkeys((*found.get(view, ()), *names)))
        return found


Served = Pair[Scorer]


class FollowedModels(Generic[S]):
    """Loads what a registry names; `current` is what a batch scores with, from its beginning to its end.

    `kind` runs a version: models that it does not serve are passed over.
    """

    kind: type[S]

    def __init__(self, plan: Plan, settings: RuntimeSettings | None = None, stage: str = "score-view") -> None:
        self._plan, self._settings = plan, settings or RuntimeSettings()
        self._meters = StageMeters(stage)
        self._current: dict[str, Pair[S]] = {}
        self._foreign: set[tuple[str, str]] = set()
        self._sessions: dict[tuple[str, str], Session] = {}
        self._failed: dict[tuple[str, str], float] = {}

    def current(self) -> dict[str, Pair[S]]:
        """Return the served models by name; what is returned does not change."""
        return self._current

    def refresh(self, registry: Lifecycle) -> bool:
        """Serve what the registry says now; return whether anything changed. It raises nothing of a model's."""
        served = {}
        for name, state in registry.models.items():
            found = self._serve(registry, state)
            if found is not None:
                served[name] = found
        if _identity(served) == _identity(self._current):
            return False
        for name in served.keys() | self._current.keys():
            self._tell(name, self._current.get(name), served.get(name))
        self._current = served  # the swap: the batch that runs keeps what it began with
        held = {(s.model, s.version) for each in served.values() for s in each.scorers}
        self._sessions = {key: session for key, session in self._sessions.items() if key in held}
        return True

    def follow(
        self, catch_up: Callable[[], Lifecycle], every_s: float, stop: threading.Event,
        changed: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        """Refresh every `every_s` until `stop`; `changed` is called after each swap.

        `catch_up` reads the log to its end and returns the registry; a broker that is away is tried again.
        """
        follow(self.refresh, catch_up, every_s, stop, self._meters, changed)

    def _serve(self, registry: Lifecycle, state: ModelState) -> Pair[S] | None:
        if state.champion is None:
            return None
        champion = None
        for version in (state.champion, *reversed(state.former)):
            champion = self._scorer(registry, state, version, shadow=False)
            if champion is not None:
                break
            if (state.name, version) in self._foreign:
                return None
        FALLBACK.labels(state.name).set(0 if champion is not None and champion.version == state.champion else 1)
        if champion is None:
            held = self._current.get(state.name)  # its folder may be gone, but it is in memory
            champion = None if held is None else held.champion
        if champion is None:
            return None
        challenger = None
        if state.challenger is not None and state.challenger != champion.version:
            challenger = self._scorer(registry, state, state.challenger, shadow=True)
        return Pair(champion, challenger, _decision_id(registry, state.name, champion.decided_at))

    def _kind_of(self, told: Description) -> type[S] | None:
        """What runs a model; None for one of another stage."""
        return self.kind if self.kind.serves(told) else None

    def _scorer(self, registry: Lifecycle, state: ModelState, version: str, *, shadow: bool) -> S | None:
        decided = _decided_at(registry, state.name, version, "challenger" if shadow else "champion")
        held = self._current.get(state.name)
        for each in () if held is None else held.scorers:
            if (each.version, each.shadow, each.decided_at) == (version, shadow, decided):
                return each
        key = (state.name, version)
        if key in self._foreign:
            return None
        if time.monotonic() - self._failed.get(key, float("-inf")) < _AGAIN_S:
            return None
        try:
            session = self._sessions.get(key)
            if session is None:
                session = open_registered(state, version, self._settings, _count_remote)
            kind = self._kind_of(session.description)
            if kind is None:
                self._foreign.add(key)
                return None
            share = state.share if shadow else 0.0
            scorer = kind(session, self._plan, shadow=shadow, decided_at=decided, share=share)
        except DealerIQError as error:
            self._failed[key] = time.monotonic()
            self._meters.error(error)
            _log.error(
                "a model version cannot be served; the last champion goes on",
                model=state.name, version=version, error=error.told,
            )  # fmt: skip
            return None
        self._failed.pop(key, None)
        self._sessions[key] = session
        return scorer

    def _tell(self, name: str, old: Pair[S] | None, new: Pair[S] | None) -> None:
        before = {} if old is None else {each.shadow: each.version for each in old.scorers}
        after = {} if new is None else {each.shadow: each.version for each in new.scorers}
        SHARE.labels(name).set(0.0 if new is None or new.challenger is None else new.challenger.share)
        if before == after:
            return
        for shadow, version in before.items():
            SERVING.labels(name, version, _role(shadow)).set(0)
        for shadow, version in after.items():
            SERVING.labels(name, version, _role(shadow)).set(1)
        SWAPS.labels(name).inc()
        _log.warning("models swapped", model=name, champion=after.get(False), challenger=after.get(True))


class ServedModels(FollowedModels[Scorer]):
    """The models of entities, and of prices."""

    kind = Scorer

    def _kind_of(self, told: Description) -> type[Scorer] | None:
        return PriceScorer if PriceScorer.serves(told) else super()._kind_of(told)


def _count_remote(model: str, outcome: str) -> None:
    REMOTE.labels(model, outcome).inc()


def _decided_at(registry: Lifecycle, model: str, version: str, stage: str) -> int:
    """Offset of the last decision that made the version what it is."""
    for each in reversed(registry.history):
        if (each.model, each.version, each.stage) == (model, version, stage) and not each.void:
            return each.at
    return -1


def _decision_id(registry: Lifecycle, model: str, at: int) -> str:
    """The id of a model's record at an offset; empty where there is none."""
    return next((each.event_id for each in registry.history if (each.model, each.at) == (model, at)), "")


def _identity(served: Mapping[str, Pair[S]]) -> dict[str, tuple[tuple[str, bool, int], ...]]:
    return {
        name: tuple((s.version, s.shadow, s.decided_at) for s in each.scorers) for name, each in served.items()
    }


def _role(shadow: bool) -> str:
    return "challenger" if shadow else "champion"
