"""Every window of vectors that closed, judged: `python -m models.embedding.watch JOB OUT`.

What is found is a function of the lake. Which windows were judged before is told by the job, from the topic
`embeddings.monitors`; nothing is kept here.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping
from itertools import combinations
from typing import Any

from connectors.lake import Lake
from models.embedding.observation import Seen
from models.embedding.shift import neighbour_overlap, shift
from models.embedding.topics import TOPICS
from models.embedding.windows import Series, VectorHistory
from models.settings import EmbeddingSettings
from models.training.child import answer

__all__ = ["history_of", "judge", "main"]

_DAY_MS = 86_400_000
_GRACE_MS = 3_600_000
_NEIGHBOURS = 10
_DRAWS = 1_999


def history_of(lake: Lake, settings: EmbeddingSettings) -> VectorHistory:
    """Open what the lake has of vectors, in windows as the settings have them. Raises LakeError."""
    return VectorHistory(lake, TOPICS, _window_ms(settings), settings.memory_mb)


def _window_ms(settings: EmbeddingSettings) -> int:
    return max(1, round(settings.window_days * _DAY_MS))


def judge(lake: Lake, settings: EmbeddingSettings, done: Collection[str] = ()) -> list[Seen]:
    """Return what was found in windows that closed, and of pairs of encoders.

    A window is closed an hour of event time after its end. `done` are event ids of what was found before.
    Raises LakeError.
    """
    window_ms = _window_ms(settings)
    with history_of(lake, settings) as history:
        everything = history.series(settings.since_ms)
        until_ms = history.newest_ms() - _GRACE_MS
        found = [
            seen
            for series in everything
            for seen in _shifts(history, series, settings, window_ms, until_ms, done)
        ]
        found += _overlaps(history, everything, settings, window_ms, done)
    return sorted(found, key=lambda each: (each.window_end, each.kind, each.encoder))


def _shifts(
    history: VectorHistory, series: Series, settings: EmbeddingSettings, window_ms: int, until_ms: int,
    done: Collection[str],
) -> Iterator[Seen]:  # fmt: skip
    enough = [begin for begin, owners in series.owners.items() if owners >= settings.least_owners]
    first, later = enough[: settings.reference_windows], enough[settings.reference_windows :]
    reference = None
    for begin in later:
        seen = Seen(
            series.kind, series.encoder, None, "shift", begin, begin + window_ms, series.owners[begin],
            None, None, False, "",
        )  # fmt: skip
        if seen.event_id in done or seen.window_end > until_ms:
            continue
        if reference is None:
            reference = history.sample(series, first, settings.most_owners)
        window = history.sample(series, [begin], settings.most_owners)
        # Ten draws beyond the limit at least, so that the limit itself is no accident.
        draws = max(_DRAWS, round(10 / settings.false_alarms) - 1)
        found = shift(reference, window, false_alarms=settings.false_alarms, draws=draws)
        said = "not those of the reference" if found.alarm else "as in the reference"
        details = {"p": found.p, "cosine": found.cosine, "wider": found.wider}
        yield Seen(
            series.kind, series.encoder, None, "shift", begin, begin + window_ms, series.owners[begin],
            found.value, found.limit, found.alarm,
            f"{series.kind} vectors are {said}: discrepancy {found.value:.5f}, limit {found.limit:.5f}, "
            f"p {found.p:.4f}, cosine of the means {found.cosine:.4f}",
            details | {"reference_owners": float(len(reference)), "looked_at": float(len(window))},
        )  # fmt: skip


def _overlaps(
    history: VectorHistory, everything: list[Series], settings: EmbeddingSettings, window_ms: int,
    done: Collection[str],
) -> Iterator[Seen]:  # fmt: skip
    """Encoders of one kind beside each other, each pair once, on chunks that both have."""
    for one, other in combinations(sorted(everything, key=lambda each: each.first_ms), 2):
        if one.kind != other.kind:
            continue
        begin, end = min(other.owners), max(other.owners) + window_ms
        blank = Seen(
            one.kind, other.encoder, one.encoder, "overlap", begin, end, 0, None, None, False, ""
        )  # fmt: skip
        if blank.event_id in done:
            continue
        before, after = history.pairs(one.kind, one.encoder, other.encoder, settings.most_owners)
        if len(before) < settings.least_owners:
            continue
        shares = neighbour_overlap(before, after, _NEIGHBOURS)
        mean, error = float(shares.mean()), float(shares.std() / len(shares) ** 0.5)
        yield Seen(
            one.kind, other.encoder, one.encoder, "overlap", begin, end, len(shares), mean, None, False,
            f"of a chunk's {_NEIGHBOURS} nearest among {len(shares):,}, {other.encoder} has {mean:.1%} "
            f"(± {1.96 * error:.1%}) in common with {one.encoder}",
            {"standard_error": error},
        )  # fmt: skip


def _work(job: Mapping[str, Any]) -> list[dict[str, Any]]:
    settings = EmbeddingSettings(**job["settings"])
    lake = Lake(job["lake"], job["lake_options"])
    return [each.as_dict() for each in judge(lake, settings, set(job["done"]))]


def main(arguments: list[str] | None = None) -> int:
    """Judge as the job says; return the exit code."""
    return answer(sys.argv[1:] if arguments is None else arguments, _work)


if __name__ == "__main__":
    sys.exit(main())
