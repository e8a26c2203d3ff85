"""Which versions answer: champions and challengers, loaded as the lifecycle says, and others when asked for."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from copy import deepcopy
from dataclasses import dataclass

from connectors.log import get_logger
from models.artifact import ArtifactError
from models.lifecycle import Lifecycle, ModelState, NoSuchVersionError
from models.runtime import RuntimeSettings, Session, open_registered
from schemas.errors import DealerIQError
from streams.metrics import StageMeters
from streams.scoring.served import FALLBACK, SERVING, SWAPS

__all__ = ["NoSuchModelError", "ServedVersions"]

_log = get_logger("dealeriq.inference")
_AGAIN_S = 30.0  # until a version that did not load is tried again: its folder may be on its way
_ROLES = ("champion", "challenger")


class NoSuchModelError(DealerIQError):
    """No model of that name was registered, or it has no champion and no version was named."""

    remedy = "See the models and their champions with `dealeriq models ls`."
    exit_code = 2


@dataclass(frozen=True)
class _Offer:
    """A model as it is offered: what the registry says, and the loaded session of each role."""

    state: ModelState
    roles: dict[str, Session]


class ServedVersions:
    """Sessions by model and version. `refresh` alone changes what the roles give, in one assignment.

    A champion that cannot be loaded takes nobody's place: the one before it goes on, and answers say which
    version they are from.
    """

    def __init__(self, settings: RuntimeSettings, keep: int, stage: str = "inference") -> None:
        self._settings, self._keep = settings, keep
        self._meters = StageMeters(stage)
        self._offers: dict[str, _Offer] = {}
        self._others: OrderedDict[tuple[str, str], Session] = OrderedDict()
        self._failed: dict[tuple[str, str], tuple[float, DealerIQError]] = {}
        self._lock = threading.Lock()
        self.followed = threading.Event()
        """Set once the log was read to its end and what it names was tried."""

    @property
    def ready(self) -> bool:
        """Whether every model that has a champion answers."""
        offers = self._offers
        return self.followed.is_set() and all(
            "champion" in each.roles for each in offers.values() if each.state.champion is not None
        )

    def state(self, model: str) -> ModelState:
        """Return what the registry says of a model. Raises NoSuchModelError."""
        offer = self._offers.get(model)
        if offer is None:
            known = ", ".join(sorted(self._offers)) or "none"
            raise NoSuchModelError(f"no model is called {model!r}; known: {known}")
        return offer.state

    def held(self, model: str, version: str = "") -> Session | None:
        """Return a session that is loaded; None where it must be loaded first (`session`) or cannot be had.

        `version` is one's name, `champion`, `challenger`, or empty for the champion.
        """
        offer = self._offers.get(model)
        if offer is None:
            return None
        if (role := version or "champion") in _ROLES:
            return offer.roles.get(role)
        for each in offer.roles.values():
            if each.version == version:
                return each
        return self._others.get((model, version))

    def session(self, model: str, version: str = "") -> Session:
        """Return a session, loaded now where it is not yet; the one unused for longest makes room.

        Raises NoSuchModelError, NoSuchVersionError, and ArtifactError where its folder cannot be served.
        """
        state = self.state(model)
        found = self.held(model, version)
        if found is not None:
            if (key := (model, version)) in self._others:
                with self._lock:
                    if key in self._others:
                        self._others.move_to_end(key)
            return found
        if version in ("", *_ROLES):
            role = version or "champion"
            named: str | None = getattr(state, role)
            if named is None:
                error = NoSuchModelError if not version else NoSuchVersionError
                raise error(f"{model} has no {role}")
            raise ArtifactError(f"the {role} of {model}, {named}, cannot be served") from self._reason(
                model, named
            )
        with self._lock:
            session = self._others.get((model, version)) or open_registered(state, version, self._settings)
            if self._keep:
                self._others[model, version] = session
            while len(self._others) > self._keep:
                self._others.popitem(last=False)
        return session

    def refresh(self, registry: Lifecycle) -> bool:
        """Offer what the registry says now; return whether what a role gives has changed."""
        offers = {}
        for name, state in registry.models.items():
            if state.versions:
                offers[name] = self._offer(state)
        before, self._offers = self._offers, offers
        changed = False
        for name, offer in offers.items():
            old = before[name].roles if name in before else {}
            changed |= self._tell(name, old, offer.roles)
        self.followed.set()
        return changed

    def _offer(self, state: ModelState) -> _Offer:
        before = self._offers.get(state.name)
        held = {} if before is None else before.roles
        roles: dict[str, Session] = {}
        for version in () if state.champion is None else (state.champion, *reversed(state.former)):
            if session := self._load(state, version, held):
                roles["champion"] = session
                break
        if state.champion is not None:
            if "champion" not in roles and "champion" in held:
                roles["champion"] = held["champion"]  # its folder may be gone, but it is in memory
            right = "champion" in roles and roles["champion"].version == state.champion
            FALLBACK.labels(state.name).set(0 if right else 1)
        if state.challenger is not None and (session := self._load(state, state.challenger, held)):
            roles["challenger"] = session
        return _Offer(deepcopy(state), roles)

    def _load(self, state: ModelState, version: str, held: dict[str, Session]) -> Session | None:
        key = (state.name, version)
        for each in held.values():
            if each.version == version:
                return each
        if key in self._others:
            return self._others[key]
        if time.monotonic() - self._failed.get(key, (float("-inf"), None))[0] < _AGAIN_S:
            return None
        try:
            session = open_registered(state, version, self._settings)
        except DealerIQError as error:
            self._failed[key] = time.monotonic(), error
            self._meters.error(error)
            _log.error("a model version cannot be served", model=state.name, version=version, error=error.told)
            return None
        self._failed.pop(key, None)
        return session

    def _reason(self, model: str, version: str) -> DealerIQError | None:
        failed = self._failed.get((model, version))
        return None if failed is None else failed[1]

    @staticmethod
    def _tell(model: str, old: dict[str, Session], new: dict[str, Session]) -> bool:
        before = {role: each.version for role, each in old.items()}
        after = {role: each.version for role, each in new.items()}
        if before == after:
            return False
        for role, version in before.items():
            SERVING.labels(model, version, role).set(0)
        for role, version in after.items():
            SERVING.labels(model, version, role).set(1)
        SWAPS.labels(model).inc()
        _log.warning("models swapped", model=model, **after)
        return True
