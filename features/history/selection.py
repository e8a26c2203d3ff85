"""Which features are asked for: services, views or single features, to views that have only these."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from features.plan import Plan, PlanError, ViewPlan

__all__ = ["UnknownFeatureError", "choose", "column_name"]


class UnknownFeatureError(PlanError):
    """A name is no service, view or feature of the plan."""

    remedy = "See `dealeriq features ls`, and `dealeriq features ls VIEW` for the features of a view."
    exit_code = 2


def choose(plan: Plan, names: Iterable[str]) -> tuple[ViewPlan, ...]:
    """Return the views that names mean, each with the asked features only, in the order of the plan.

    A name is a feature service, a view, or a feature: `view.feature`, or `view:feature` as Feast writes it.
    Raises UnknownFeatureError, also where nothing is asked for.
    """
    asked: dict[str, set[str]] = {}
    for name in names:
        view, _, feature = name.replace(":", ".").partition(".")
        for each in _views(plan, view if feature else name):
            known = {known.name for known in each.features}
            if feature and feature not in known:
                raise UnknownFeatureError(f"{each.name} has no feature {feature!r}{_near(feature, known)}")
            asked.setdefault(each.name, set()).update({feature} if feature else known)
    if not asked:
        raise UnknownFeatureError("no feature is asked for")
    return tuple(
        replace(view, features=tuple(f for f in view.features if f.name in asked[view.name]))
        for view in plan.views.values()
        if view.name in asked
    )


def column_name(view: str, feature: str) -> str:
    """Return the column of a feature, as Feast's full names are."""
    return f"{view}__{feature}"


def _views(plan: Plan, name: str) -> tuple[ViewPlan, ...]:
    try:
        return plan.select(name)
    except PlanError:
        known = {*plan.services, *plan.views}
        raise UnknownFeatureError(
            f"no feature service, view or feature is called {name!r}{_near(name, known)}"
        ) from None


def _near(name: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""
