"""Compile the Feast repository to `plan.json` and the Avro schemas of the tile topics.

It needs Feast, and so runs when a definition changes, never on a hot path.
"""

from __future__ import annotations

import json
from pathlib import Path

from features.plan import PLAN_PATH, Plan
from features.view_compiler import compile_view, tile_schemas

__all__ = ["artefacts", "compile_repo", "write"]


def compile_repo() -> Plan:
    """Compile the definitions in `features/repo`. Raises PlanError for one that cannot be computed."""
    from features.repo.now import NOW
    from features.repo.services import SERVICES
    from features.repo.views import VIEWS

    views = [compile_view(view) for view in VIEWS]
    view_of = {now.name: name for name, now in NOW.items()}
    return Plan(
        project="dealeriq",
        distinct_precision=10,
        views={view.name: view for view in views},
        services={
            service.name: tuple(view_of[projection.name] for projection in service.feature_view_projections)
            for service in SERVICES
        },
    )


def artefacts(plan: Plan) -> dict[Path, str]:
    """Return every generated file and its text."""
    topics = Path(__file__).parents[1] / "schemas" / "topics"
    files = {PLAN_PATH: plan.to_json()}
    for view in plan.views.values():
        key, value = tile_schemas(view)
        files[topics / f"{view.topic}.key.avsc"] = json.dumps(key, indent=2) + "\n"
        files[topics / f"{view.topic}.avsc"] = json.dumps(value, indent=2) + "\n"
    return files


def write(plan: Plan) -> list[Path]:
    """Write the artefacts that differ from what is on disk, and return their paths."""
    changed = [
        (path, text)
        for path, text in artefacts(plan).items()
        if not path.exists() or path.read_text("utf-8") != text
    ]
    for path, text in changed:
        path.write_text(text, "utf-8")
    return [path for path, _ in changed]
