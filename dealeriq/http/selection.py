"""What a request asks for: the views and features by name, checked against the plan, and whose they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dealeriq.http.problems import ProblemError, nearest
from features.plan import Plan

__all__ = ["Catalogue", "Selection", "parse_time"]

EARLIEST_MS, LATEST_MS = 946_684_800_000, 4_102_444_800_000  # 2000-01-01 to 2100-01-01, as in the contracts

Entity = dict[str, str | int]


@dataclass(frozen=True)
class Selection:
    """Views to read, the features to answer of each (None for all), and the entity keys they need, in order."""

    name: str
    views: tuple[str, ...]
    features: Mapping[str, frozenset[str]] | None
    keys: tuple[str, ...]
    integers: frozenset[str]

    def entity(self, given: Mapping[str, Any], where: str) -> Entity:
        """Check an entity's keys; raises a `wrong-entity` problem that names the keys."""
        if set(given) != set(self.keys):
            raise ProblemError(
                "wrong-entity",
                f"{where} has the keys {', '.join(sorted(map(str, given))) or '(none)'}; "
                f"{self.name} needs exactly {', '.join(self.keys)}.",
            )
        entity: Entity = {}
        for key in self.keys:
            value = given[key]
            if key in self.integers:
                try:
                    entity[key] = int(value)
                except (TypeError, ValueError):
                    raise ProblemError(
                        "wrong-entity", f"{where}: {key} must be an integer, not {value!r}."
                    ) from None
            elif isinstance(value, str | int) and not isinstance(value, bool):
                entity[key] = str(value)
            else:
                raise ProblemError(
                    "wrong-entity", f"{where}: {key} must be a string, not {type(value).__name__}."
                )
        return entity

    def entity_of_path(self, values: Sequence[str]) -> Entity:
        """The entity whose key values stand in the path, comma-separated in the order of the keys."""
        if len(values) != len(self.keys):
            raise ProblemError(
                "wrong-entity",
                f"The path gives {len(values)} key value(s); {self.name} needs {len(self.keys)}: "
                f"{','.join('{' + key + '}' for key in self.keys)}.",
            )
        return self.entity(dict(zip(self.keys, values, strict=True)), "The path")


class Catalogue:
    """Everything that can be asked for, by name; a name is a feature service or a feature view."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._services: dict[str, tuple[str, ...]] = {
            name: tuple(views) for name, views in plan.services.items()
        }
        self._known = {name: self._select(name, views) for name, views in self._services.items()}
        self._known |= {name: self._select(name, (name,)) for name in plan.views if name not in self._known}

    def named(self, name: str) -> Selection:
        """The selection of a feature service or view; raises an `unknown-service` problem with suggestions."""
        selection = self._known.get(name)
        if selection is None:
            raise ProblemError(
                "unknown-service", f"No feature service or view is named {name!r}. {nearest(name, self._known)}"
            )
        return selection

    def of_views(self, names: Iterable[str]) -> Selection:
        """All features of the named views."""
        views = tuple(dict.fromkeys(names))
        for view in views:
            self._view(view)
        return self._select(", ".join(views), views)

    def of_features(self, references: Iterable[str]) -> Selection:
        """Chosen features, each as `view:feature`."""
        chosen: dict[str, set[str]] = {}
        for reference in references:
            view, separator, feature = reference.partition(":")
            if not separator:
                raise ProblemError("unknown-feature", f"{reference!r} is not of the form view:feature.")
            known = {one.name for one in self._view(view).features}
            if feature not in known:
                raise ProblemError(
                    "unknown-feature", f"View {view} has no feature {feature!r}. {nearest(feature, known)}"
                )
            chosen.setdefault(view, set()).add(feature)
        return self._select(
            ", ".join(chosen), tuple(chosen), {view: frozenset(names) for view, names in chosen.items()}
        )

    def describe(self) -> dict[str, Any]:
        """The plan as `/v1/plan` shows it."""
        views = [
            {
                "name": view.name,
                "entity": list(view.entity),
                "source_topic": view.source_topic,
                "ttl_ms": view.ttl_ms,
                "features": [
                    {
                        "name": feature.name,
                        "column": feature.column,
                        "function": feature.function,
                        "window_ms": feature.window_ms,
                        "dtype": feature.dtype,
                    }
                    for feature in view.features
                ],
            }
            for view in self.plan.views.values()
        ]
        return {"views": views, "services": {name: list(each) for name, each in self._services.items()}}

    def _view(self, name: str) -> Any:
        if name not in self.plan.views:
            raise ProblemError(
                "unknown-service", f"No view is named {name!r}. {nearest(name, self.plan.views)}"
            )
        return self.plan.views[name]

    def _select(
        self, name: str, views: tuple[str, ...], features: Mapping[str, frozenset[str]] | None = None
    ) -> Selection:
        plans = [self.plan.views[view] for view in views]
        keys = tuple(dict.fromkeys(key for plan in plans for key in plan.entity))
        integers = frozenset(
            key
            for plan in plans
            for key, kind in zip(plan.entity, plan.entity_types, strict=True)
            if "int" in kind.lower() or kind.lower() == "long"
        )
        return Selection(name, views, features, keys, integers)


def parse_time(text: str | int) -> int:
    """Event time in ms since epoch, from ms or ISO 8601 with an offset; else a `malformed-request` problem."""
    try:
        moment = int(text)
    except ValueError:
        try:
            # A plus sign that a browser did not escape arrives as a space.
            parsed = datetime.fromisoformat(str(text).strip().replace(" 0", "+0").replace(" 1", "+1"))
        except ValueError:
            raise ProblemError(
                "malformed-request",
                f"at={text!r} is neither milliseconds since 1970 nor ISO 8601.",
                remedy="For example at=1501545600000 or at=2017-08-01T00:00:00Z.",
            ) from None
        if parsed.tzinfo is None:
            raise ProblemError(
                "malformed-request",
                f"at={text!r} has no time zone.",
                remedy="Append Z, or an offset such as +02:00.",
            ) from None
        moment = round(parsed.timestamp() * 1000)
    if not EARLIEST_MS < moment < LATEST_MS:
        raise ProblemError(
            "malformed-request",
            f"at={text} lies outside 2000-01-01 to 2100-01-01.",
            remedy="Give milliseconds since 1970, not seconds.",
        )
    return moment
