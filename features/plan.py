"""The compiled feature plan: what hot paths load instead of Feast.

`dealeriq features apply` compiles the Feast repository in `features/repo` to `features/plan.json`; everything
that computes, stores or merges tiles reads that file through this module, which needs nothing but the standard
library.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from schemas.errors import DealerIQError

__all__ = ["PLAN_PATH", "ColumnPlan", "FeaturePlan", "Plan", "PlanError", "ViewPlan", "load"]

PLAN_PATH = Path(__file__).with_name("plan.json")


class PlanError(DealerIQError):
    """A feature definition or the compiled plan cannot be used."""

    remedy = (
        "Mend the definition in features/repo, then run `dealeriq features plan` and `dealeriq features apply`."
    )
    exit_code = 5


@dataclass(frozen=True)
class ColumnPlan:
    """A source column and the partials its tiles keep: of sum, sumsq, min, max, last, distinct, in order."""

    column: str
    partials: tuple[str, ...]


@dataclass(frozen=True)
class FeaturePlan:
    """One feature: `function` of `column` over the last `window_ms`; `dtype` is double or long."""

    name: str
    column: str
    function: str
    window_ms: int
    dtype: str


@dataclass(frozen=True)
class ViewPlan:
    """How one feature view is folded into tiles, kept and merged. All times are ms; grains are finest first."""

    name: str
    source_topic: str
    entity: tuple[str, ...]
    entity_types: tuple[str, ...]
    timestamp: str
    hop_ms: int
    grains_ms: tuple[int, ...]
    retention_ms: tuple[int, ...]
    lateness_ms: int
    ttl_ms: int
    columns: tuple[ColumnPlan, ...]
    features: tuple[FeaturePlan, ...]

    @property
    def topic(self) -> str:
        """The topic of this view's tiles."""
        return f"tiles.{self.name}"

    def tail_grain_ms(self, window_ms: int) -> int:
        """The grain a window's start is rounded down to: 1 min, 1 h (from 12 h) or 1 day (from 12 days)."""
        wanted = (
            60_000 if window_ms < 12 * 3_600_000 else 3_600_000 if window_ms < 12 * 86_400_000 else 86_400_000
        )
        return max(grain for grain in self.grains_ms if grain <= max(wanted, self.hop_ms))


@dataclass(frozen=True)
class Plan:
    """All views by name, and feature services: name to view names."""

    project: str
    distinct_precision: int
    views: Mapping[str, ViewPlan]
    services: Mapping[str, tuple[str, ...]]

    def to_json(self) -> str:
        """Return the text of plan.json."""
        data = asdict(self) | {"views": [asdict(view) for view in self.views.values()]}
        return json.dumps(data, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read the text of plan.json. Raises PlanError."""
        try:
            data = json.loads(text)
            views = [_view(each) for each in data["views"]]
            return cls(
                project=data["project"],
                distinct_precision=data["distinct_precision"],
                views={view.name: view for view in views},
                services={name: tuple(names) for name, names in data["services"].items()},
            )
        except (KeyError, TypeError, ValueError) as error:
            raise PlanError(f"the feature plan cannot be read: {error}") from error

    def select(self, name: str) -> tuple[ViewPlan, ...]:
        """Return the views of a feature service or a single view. Raises PlanError for an unknown name."""
        if name in self.services:
            return tuple(self.views[view] for view in self.services[name])
        if name in self.views:
            return (self.views[name],)
        known = ", ".join([*self.services, *self.views])
        raise PlanError(f"no feature service or view is called {name!r}; there are {known}")


def _view(data: dict[str, Any]) -> ViewPlan:
    lists = {"entity", "entity_types", "grains_ms", "retention_ms"}
    given: dict[str, Any] = {key: tuple(value) if key in lists else value for key, value in data.items()}
    given["columns"] = tuple(ColumnPlan(each["column"], tuple(each["partials"])) for each in data["columns"])
    given["features"] = tuple(FeaturePlan(**each) for each in data["features"])
    return ViewPlan(**given)


@cache
def load(path: Path = PLAN_PATH, project: str | None = None) -> Plan:
    """Load the compiled plan, for another Feast project where one is named (setting `features.project`).

    Raises PlanError where it is missing or damaged.
    """
    try:
        plan = Plan.from_json(path.read_text("utf-8"))
        return plan if project is None else replace(plan, project=project)
    except OSError as error:
        raise PlanError(f"the feature plan {path.name} cannot be read: {error.strerror}") from error
