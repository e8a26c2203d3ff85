"""Which kinds of vectors there are under these settings: what is published, indexed, and fused into one."""

from __future__ import annotations

from collections.abc import Sequence

from dealeriq.settings import Settings, SettingsError
from models.fusion import HYBRID, REQUIRED

__all__ = ["fused_kinds", "indexed_kinds", "weights_of"]


def indexed_kinds(settings: Settings) -> Sequence[str]:
    """Return the kinds that the index holds: those of `search.kinds`, else all that are published."""
    if settings.search.kinds is not None:
        return settings.search.kinds
    published = {
        **_of_products(settings),
        "behaviour": settings.recommend.behaviour_every_s is not None,
        HYBRID: settings.hybrid.enabled,
    }
    return [name for name, is_so in published.items() if is_so]


def fused_kinds(settings: Settings) -> list[str]:
    """Return the kinds that are fused: those of `hybrid.kinds`, else all that are published of products.

    Raises SettingsError where there is nothing to fuse.
    """
    if settings.hybrid.kinds is not None:
        wanted = dict.fromkeys(settings.hybrid.kinds)
        if REQUIRED not in wanted or len(wanted) < 2:
            raise SettingsError(
                f"hybrid.kinds is {', '.join(wanted)}", remedy=f"Name {REQUIRED} and another kind at least."
            )
        return [REQUIRED, *(each for each in wanted if each != REQUIRED)]
    found = [name for name, is_so in _of_products(settings).items() if is_so]
    if len(found) < 2:
        raise SettingsError(
            f"hybrid.enabled is set, and of products only vectors of {', '.join(found)} are published",
            remedy="Set graph.enabled or image.enabled, or name in hybrid.kinds what another system publishes.",
        )
    return found


def weights_of(settings: Settings) -> dict[str, float]:
    """Return the kinds that are fused, the text's first, with the weight of each. Raises SettingsError."""
    return {kind: settings.hybrid.weight(kind) for kind in fused_kinds(settings)}


def _of_products(settings: Settings) -> dict[str, bool]:
    return {
        REQUIRED: True,
        "graph": settings.graph.enabled or settings.graph.url is not None,
        "image": settings.image.enabled,
    }
