"""What a change of the definitions does: features and tile fields that come and go, what must be reread."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from features.plan import Plan, ViewPlan
from features.tiles import double_fields, sketch_fields

__all__ = ["Backfill", "ViewChange", "compare"]


class Backfill(StrEnum):
    """What must be read again before every value is right."""

    NONE = "none"
    TILES = "tiles"  # replay the tile topic into the online store: it keeps the older tiles
    EVENTS = "events"  # replay the source topic through the tile job


@dataclass(frozen=True)
class ViewChange:
    """How one view differs; `reason` says why the backfill is needed, or is empty."""

    view: str
    kind: str
    added_features: tuple[str, ...]
    removed_features: tuple[str, ...]
    changed_features: tuple[str, ...]
    added_fields: tuple[str, ...]
    removed_fields: tuple[str, ...]
    backfill: Backfill
    reason: str


def compare(old: Plan | None, new: Plan) -> list[ViewChange]:
    """Return how each view differs, as ordered in `new`, then removed ones. `old` None: nothing was applied."""
    before = old.views if old else {}
    repriced = old is not None and old.distinct_precision != new.distinct_precision
    changes = [_compare(before.get(name), view, repriced) for name, view in new.views.items()]
    changes += [_removed(view) for name, view in before.items() if name not in new.views]
    return [change for change in changes if change is not None]


def _compare(old: ViewPlan | None, new: ViewPlan, repriced: bool) -> ViewChange | None:
    if old == new and not (repriced and sketch_fields(new)):
        return None
    was = {each.name: each for each in old.features} if old else {}
    now = {each.name: each for each in new.features}
    fields, had = _fields(new), _fields(old) if old else ()
    added = tuple(name for name in fields if name not in had)
    backfill, reason = _backfill(old, new, added, repriced)
    return ViewChange(
        view=new.name,
        kind="changed" if old else "added",
        added_features=tuple(name for name in now if name not in was),
        removed_features=tuple(name for name in was if name not in now),
        changed_features=tuple(name for name, each in now.items() if name in was and was[name] != each),
        added_fields=added,
        removed_fields=tuple(name for name in had if name not in fields),
        backfill=backfill,
        reason=reason,
    )


def _backfill(
    old: ViewPlan | None, new: ViewPlan, added: tuple[str, ...], repriced: bool
) -> tuple[Backfill, str]:
    if old is None:
        return Backfill.EVENTS, "the view is new"
    identity = ("source_topic", "entity", "entity_types", "timestamp", "grains_ms")
    if different := [name for name in identity if getattr(old, name) != getattr(new, name)]:
        return Backfill.EVENTS, f"tiles of another {', '.join(different)} cannot be merged with the stored ones"
    if repriced and sketch_fields(new):
        return Backfill.EVENTS, "sketches of another precision cannot be merged with the stored ones"
    if added:
        return Backfill.EVENTS, "stored tiles lack the added fields; windows over them are unknown until then"
    if any(now > was for was, now in zip(old.retention_ms, new.retention_ms, strict=True)):
        return Backfill.TILES, "the online store has dropped tiles that a longer window needs"
    return Backfill.NONE, ""


def _removed(old: ViewPlan) -> ViewChange:
    names = tuple(each.name for each in old.features)
    return ViewChange(old.name, "removed", (), names, (), (), _fields(old), Backfill.NONE, "")


def _fields(view: ViewPlan) -> tuple[str, ...]:
    return (*double_fields(view), *sketch_fields(view))
