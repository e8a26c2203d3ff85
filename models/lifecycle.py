"""The registry of models as a fold of `model.lifecycle`: which versions there are, and which one is champion.

The log is the truth. `Lifecycle.apply` is given its records in order and is the only thing that decides;
everybody who folds the same records has the same registry. A record that decides (champion, challenger) says
which decision it saw last (`after`); if another one came between, it counts for nothing, and its writer can see
so by reading on. So of two promotions at once one wins, without a lock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from schemas.errors import DealerIQError
from schemas.ids import derived_id

__all__ = [
    "TOPIC",
    "Decision",
    "Lifecycle",
    "LifecycleError",
    "ModelState",
    "NoSuchVersionError",
    "PromotionLostError",
    "Version",
    "decision",
    "step_id",
]

TOPIC = "model.lifecycle"
_DECISIONS = ("champion", "challenger")


class LifecycleError(DealerIQError):
    """A step that the version cannot take. Nothing changed."""

    remedy = "See the versions and their stages with `dealeriq models ls NAME`."
    exit_code = 5


class NoSuchVersionError(LifecycleError):
    """The model has no such version."""

    exit_code = 2


class PromotionLostError(LifecycleError):
    """Another decision about the same model came between reading and writing. This one counts for nothing."""

    remedy = "Look at the model again (`dealeriq models ls NAME`), and decide anew if you still want to."


@dataclass
class Version:
    """One version of a model and what became of it. `at` is the offset of its last step, `text` that step's
    words.
    """

    version: str
    stage: str
    artifact: str = ""
    run_id: str = ""
    sha256: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    text: str = ""
    reason: str = ""
    registered_ms: int = 0
    changed_ms: int = 0
    at: int = -1


@dataclass
class ModelState:
    """A model: its versions in order of registration, the one that is champion, and the champions before it.

    `share` is the part of the traffic that the challenger's scores count for: a challenger with a share is a
    canary. `position` is the offset of the last decision (champion, challenger), what the next one must name as
    `after`.
    """

    name: str
    versions: dict[str, Version] = field(default_factory=dict)
    champion: str | None = None
    challenger: str | None = None
    share: float = 0.0
    former: list[str] = field(default_factory=list)
    position: int = -1

    def version(self, name: str) -> Version:
        """Return a version. Raises NoSuchVersionError."""
        if name not in self.versions:
            known = ", ".join(list(self.versions)[-5:]) or "none"
            raise NoSuchVersionError(f"{self.name} has no version {name!r}; the last ones are {known}")
        return self.versions[name]

    def before(self) -> Version:
        """Return the champion before this one. Raises LifecycleError where there is none."""
        if not self.former:
            raise LifecycleError(f"{self.name} has no earlier champion to go back to")
        return self.versions[self.former[-1]]

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON and for comparison."""
        return asdict(self)


@dataclass(frozen=True)
class Decision:
    """What one record did: nothing where `void` says why."""

    event_id: str
    model: str
    version: str
    stage: str
    text: str
    reason: str
    at: int
    event_time: int
    void: str = ""


class Lifecycle:
    """The fold. Feed it every record of the topic in order; `models` is the registry, `history` all steps."""

    def __init__(self) -> None:
        self.models: dict[str, ModelState] = {}
        self.history: list[Decision] = []
        self._seen: set[str] = set()
        self._upto: dict[str, int] = {}

    def state(self, model: str) -> ModelState:
        """Return a model's state; one that nothing was said of has no versions."""
        return self.models.get(model) or ModelState(model)

    def apply(self, record: Mapping[str, Any], at: int) -> Decision:
        """Fold one record at offset `at`; return what it did. One at an offset that was read does nothing
        again.
        """
        again = at <= self._upto.get(record["model"], -1)
        self._upto[record["model"]] = max(at, self._upto.get(record["model"], -1))
        model = self.models.setdefault(record["model"], ModelState(record["model"]))
        void = "it was said before" if again or record["event_id"] in self._seen else _refusal(model, record)
        if not void:
            self._seen.add(record["event_id"])
            _take(model, record, at)
        told = {name: record[name] for name in ("event_id", "model", "stage", "text", "reason", "event_time")}
        found = Decision(**told, version=record["model_version"], at=at, void=void)
        if not again:
            self.history.append(found)
        return found

    def as_dict(self) -> dict[str, Any]:
        """Return the whole registry, for JSON and for comparison."""
        return {name: model.as_dict() for name, model in sorted(self.models.items())}


def step_id(model: str, version: str, stage: str, cause: str) -> str:
    """Return the id of a step: the same cause, version and stage are the same step."""
    return derived_id(f"{version}:{stage}", model, 0, cause)


def decision(
    state: ModelState,
    version: str,
    stage: str,
    text: str,
    *,
    cause: str,
    event_time: int,
    reason: str,
    **more: Any,
) -> dict[str, Any]:
    """Return the record of a step, as seen from `state`. Raises LifecycleError where it would count for
    nothing, PromotionLostError where `after` was given and is not the last decision any more.

    `cause` is what led to it; a repeat for the same cause is recognised (`step_id`).
    """
    record = {
        "event_id": step_id(state.name, version, stage, cause),
        "model": state.name,
        "model_version": version,
        "stage": stage,
        "artifact": "",
        "text": text[:4_000],
        "metrics": {},
        "reason": reason,
        "after": state.position,
        "share": 0.0,
        "run_id": "",
        "sha256": "",
        "cause_id": cause,
        "event_time": event_time,
    } | more
    if refusal := _refusal(state, record):
        if stage in _DECISIONS and version in state.versions and record["after"] != state.position:
            raise PromotionLostError(f"{state.name} {version} cannot become {stage}: {refusal}")
        if version not in state.versions and stage != "registered":
            state.version(version)
        raise LifecycleError(f"{state.name} {version} cannot become {stage}: {refusal}")
    return record


def _refusal(model: ModelState, record: Mapping[str, Any]) -> str:
    """Why a record counts for nothing, in words; empty where it counts."""
    version, stage = record["model_version"], record["stage"]
    if stage == "registered":
        return "it is registered" if version in model.versions else ""
    if version not in model.versions:
        return "no such version was registered"
    if stage in _DECISIONS:
        if record["after"] != model.position:
            return (
                f"it was decided after offset {record['after']}, and the last decision is at {model.position}"
            )
        if version == model.champion:
            return "it is the champion"
        if stage == "challenger" and (version, record.get("share", 0.0)) == (model.challenger, model.share):
            return "it is the challenger"
    elif version == model.champion:
        return "it is the champion, and a model is never without one: promote another, or roll back"
    return ""


def _take(model: ModelState, record: Mapping[str, Any], at: int) -> None:
    name, stage = record["model_version"], record["stage"]
    if stage == "registered":
        model.versions[name] = Version(
            name, stage, record["artifact"], record["run_id"], record["sha256"],
            registered_ms=record["event_time"],
        )  # fmt: skip
    version = model.versions[name]
    if stage in _DECISIONS:
        model.position = at
        old = model.champion if stage == "champion" else model.challenger
        if old is not None and old != name:
            model.versions[old].stage = "retired"
    if model.challenger == name:
        model.challenger, model.share = None, 0.0
    if stage == "champion":
        if record["reason"] == "rollback" and model.former and model.former[-1] == name:
            model.former.pop()
        elif model.champion is not None:
            model.former.append(model.champion)
        model.champion = name
    elif stage == "challenger":
        model.challenger, model.share = name, record.get("share", 0.0)
    version.stage, version.text, version.reason = stage, record["text"], record["reason"]
    version.changed_ms, version.at = record["event_time"], at
    version.metrics |= record["metrics"]
