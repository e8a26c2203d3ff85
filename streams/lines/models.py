"""Which versions score order lines, as the lifecycle's log says."""

from __future__ import annotations

from streams.lines.scorer import LineScorer
from streams.scoring.served import FollowedModels, Pair

__all__ = ["STAGE", "LineModels", "ServedLines"]

STAGE = "line-scorer"

ServedLines = Pair[LineScorer]


class LineModels(FollowedModels[LineScorer]):
    """The models of single order lines."""

    kind = LineScorer
