"""Every window that closed, judged: `python -m models.monitoring.watch JOB OUT`.

What is found is a function of the lake and the versions' folders. Which windows were judged before is told by
the job, from the topic `model.monitors`; nothing is kept here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from connectors.lake import Lake
from models.artifact import Description, load
from models.inputs import Calendar, Holidays
from models.monitoring.alarms import Watched
from models.monitoring.beside import compare
from models.monitoring.drift import DriftTest
from models.monitoring.errors import by_block, ranks, rises, spread_of_weeks, steadied
from models.monitoring.lessons import judge_lessons
from models.monitoring.observation import Observation
from models.monitoring.performance import Estimator, Losses, WorseTest
from models.monitoring.reference import Reference, load_reference
from models.monitoring.scored import Scored, Span, read_scored, spans
from models.settings import MonitorSettings
from models.spec import ModelSpec
from models.specs import spec as spec_of
from models.training.child import answer
from models.training.events import Stream
from schemas.errors import DealerIQError

__all__ = ["main", "watch"]

_GRACE_MS = 3_600_000  # a score may come this much later, in event time, than others of its window
_MOST_WINDOWS = 100  # judged in one run
_FAMILIES = 4  # drift, estimated, measured, errors: each may raise a false alarm
_DAY_MS = 86_400_000


def watch(job: Mapping[str, Any]) -> dict[str, Any]:
    """Judge what closed; return `observations` in the order of windows, and `problems` in words.

    `job` has `lake`, `lake_options`, `settings` (MonitorSettings) and `watched`. Raises LakeError.
    """
    settings = MonitorSettings(**job["settings"])
    found: list[Observation] = []
    problems: list[str] = []
    with Stream(Lake(job["lake"], job["lake_options"]), memory_mb=settings.memory_mb) as stream:
        known: dict[str, dict[str, Span]] = {}
        watched = [Watched(**each) for each in job["watched"]]
        for each in watched:
            if topic := spec_of(each.model).lessons:
                if each.role == "champion":
                    delta = settings.false_alarms / _FAMILIES
                    found += judge_lessons(stream, settings, each, topic, delta)
                continue
            if each.model not in known:
                ends = [min(one.done.values(), default=0) for one in watched if one.model == each.model]
                known[each.model] = spans(stream, each.model, min(ends), round(settings.settle_s * 1000))
            try:
                found += _Judge(stream, settings, each, known[each.model]).judge()
                if each.role == "challenger":
                    (champion,) = [one for one in watched if (one.model, one.role) == (each.model, "champion")]
                    found += compare(stream, settings, job["confidence"], champion, each)
            except DealerIQError as error:
                problems.append(f"{each.model} {each.version}: {error}")
    found.sort(key=lambda one: (one.window_end, one.model, one.model_version))
    return {"observations": [each.as_dict() for each in found], "problems": problems}


class _Judge:
    """One version through all its monitors."""

    def __init__(
        self, stream: Stream, settings: MonitorSettings, watched: Watched, known: Mapping[str, Span]
    ) -> None:
        self._stream, self._settings, self._watched = stream, settings, watched
        self._window = max(1, round(settings.window_days * _DAY_MS))
        self._spec: ModelSpec = spec_of(watched.model)
        folder = Path(watched.artifact)
        self._told: Description = load(folder)[0]
        self._reference: Reference = load_reference(folder, len(self._told.inputs), len(self._told.outputs))
        self._closed = (max(each.newest_ms for each in known.values()) if known else 0) - _GRACE_MS
        self._first = self._begin(known.get(watched.version))
        self._each = settings.false_alarms / _FAMILIES
        answers = self._reference.answers.astype(np.float64)
        self._usual = Losses(self._spec.loss(self._reference.y, answers), self._spec.scale(self._reference.y))

    def judge(self) -> list[Observation]:
        """Return what was found in windows that were not judged before."""
        if self._first is None:
            return []
        found: list[Observation] = []
        if self._watched.role == "champion":
            found += self._unlabelled()
        return found + self._labelled()

    def _begin(self, span: Span | None) -> int | None:
        """The begin of the first window that is whole: after training, and after the version's first scores."""
        if self._watched.first_ms is not None:
            return self._watched.first_ms
        if span is None:
            return None
        first = self._told.as_of_ms // self._window
        if span.settled_ms is not None:
            first = max(first, span.settled_ms // self._window + 1)
        return first * self._window

    def _windows(self, monitor: str, known_ms: int) -> Iterator[tuple[int, int]]:
        """Windows to judge: closed, and not judged by this monitor."""
        begin = max(self._first or 0, self._watched.done.get(monitor, 0))
        for _ in range(_MOST_WINDOWS):
            if begin + self._window > min(self._closed, known_ms):
                return
            yield begin, begin + self._window
            begin += self._window

    def _read(self, begin: int, end: int) -> Scored:
        return read_scored(
            self._stream, self._watched.model, self._watched.version, begin, end, self._window,
            entity=self._spec.entity, inputs=[each.name for each in self._told.inputs],
            outputs=self._told.outputs,
        )  # fmt: skip

    def _seen(
        self, monitor: str, begin: int, end: int, rows: Scored, text: str, value: float | None = None,
        limit: float | None = None, alarm: bool = False, details: Mapping[str, float] | None = None,
    ) -> Observation:  # fmt: skip
        one = self._watched
        good = {name: float(each) for name, each in (details or {}).items() if np.isfinite(each)}
        return Observation(
            one.model, one.version, one.role, one.decided_at, monitor, begin, end, len(rows),
            None if value is None or not np.isfinite(value) else float(value),
            None if limit is None or not np.isfinite(limit) else float(limit),
            bool(alarm), text, good, rows.last or one.version,
        )  # fmt: skip

    def _few(self, rows: Scored) -> str:
        least = self._settings.least_dealers
        return (
            "" if rows.dealers >= least else f"not judged: scores of {rows.dealers} dealers, of {least} needed"
        )

    def _unlabelled(self) -> list[Observation]:
        """Drift of inputs and outputs, and the estimated performance."""
        found = []
        inputs = [
            at for at, each in enumerate(self._told.inputs)
            if not isinstance(each, Calendar | Holidays)  # time goes on: that is no drift
        ]  # fmt: skip
        names = [self._told.inputs[at].name for at in inputs]
        drift: DriftTest | None = None
        for begin, end in self._windows("inputs", self._closed):
            rows = self._read(begin, end)
            if few := self._few(rows):
                found += [
                    self._seen(each, begin, end, rows, few) for each in ("inputs", "outputs", "estimated")
                ]
                continue
            if drift is None:
                drift = DriftTest(
                    self._reference, np.hstack([self._reference.x[:, inputs], self._reference.answers]),
                    false_alarms=self._each, least=self._settings.least_psi,
                )  # fmt: skip
                estimator = Estimator(self._spec, self._reference)
                usual = estimator(self._reference.answers)
                worse = WorseTest(self._reference, usual, false_alarms=self._each)
            seen = drift.judge(np.hstack([rows.x[:, inputs], rows.answers]), rows.dealers)
            parts = (
                ("inputs", names, slice(0, len(names))),
                ("outputs", self._told.outputs, slice(len(names), None)),
            )
            for monitor, called, part in parts:
                index, limit = seen.psi[part], seen.limit[part]
                worst = int(np.argmax(index / limit))
                text = f"{called[worst]}: PSI {index[worst]:.3f}, at most {limit[worst]:.3f}"
                details = dict(zip(called, index.tolist(), strict=True))
                beyond = bool((index > limit).any())
                found.append(
                    self._seen(monitor, begin, end, rows, text, index[worst], limit[worst], beyond, details)
                )
            value, limit_value = estimator(rows.answers).value, worse.limit(rows.dealers)
            found.append(self._told_of("estimated", begin, end, rows, value, limit_value, worse.value))
        return found

    def _labelled(self) -> list[Observation]:
        """The measured performance, and changes within the errors."""
        known = (self._stream.latest_ms(self._spec.label.topic) or 0) - self._spec.label.known_after_ms
        windows = list(self._windows("measured", known))
        if not windows or self._first is None:
            return []
        # Changes are sought in all errors since the version began.
        rows = self._read(self._first, windows[-1][1])
        losses = self._losses(rows)
        champion = self._watched.role == "champion"
        number = (rows.time - self._first) // self._window
        risen = self._risen(rows, losses, number) if champion and len(rows) else {}
        worse = WorseTest(self._reference, self._usual, false_alarms=self._each)
        found = []
        for begin, end in windows:
            at = number == (begin - self._first) // self._window
            some, lost = rows.take(at), Losses(losses.loss[at], losses.scale[at])
            if few := self._few(some):
                kinds = ("measured", "errors") if champion else ("measured",)
                found += [self._seen(each, begin, end, some, few) for each in kinds]
                continue
            limit = worse.limit(some.dealers) if champion else None
            found.append(self._told_of("measured", begin, end, some, lost.value, limit, worse.value))
            if champion:
                level, rose = risen.get((begin - self._first) // self._window, (0.5, False))
                text = f"{'errors rose' if rose else 'no change in the errors'}: mean rank {level:.2f}"
                found.append(self._seen("errors", begin, end, some, text, level, None, rose))
        return found

    def _losses(self, rows: Scored) -> Losses:
        if not len(rows):
            return Losses(np.empty(0), np.empty(0))
        truth = self._spec.labels(rows.rows, self._stream)
        return Losses(self._spec.loss(truth, rows.answers.astype(np.float64)), self._spec.scale(truth))

    def _risen(self, rows: Scored, losses: Losses, number: NDArray[np.int64]) -> dict[int, tuple[float, bool]]:
        """Each window's mean rank of errors among the reference's, and whether ADWIN saw them rise in it."""
        usual, known = by_block(self._usual.loss, self._usual.scale, self._reference.block)
        week = np.zeros(int(self._reference.block.max()) + 1, np.int64)
        week[self._reference.block] = self._reference.period
        spread = spread_of_weeks(ranks(usual, usual), week[known])
        many = int(rows.dealer.max()) + 1
        errors, blocks = by_block(losses.loss, losses.scale, number * many + rows.dealer)
        window = blocks // many
        ranked = steadied(ranks(errors, usual), window, spread)
        rose = {int(window[place]) for place in rises(ranked.tolist(), self._each)}
        return {
            each: (float(ranked[window == each].mean()), each in rose) for each in np.unique(window).tolist()
        }

    def _told_of(
        self, monitor: str, begin: int, end: int, rows: Scored, value: float, limit: float | None, usual: float
    ) -> Observation:
        metric = self._spec.gate.metric
        most = "" if limit is None else f", at most {limit:.4g}"
        text = f"{metric} {monitor} {value:.4g}, on the holdout {usual:.4g}{most}"
        alarm = limit is not None and value > limit
        return self._seen(monitor, begin, end, rows, text, value, limit, alarm, {"holdout": usual})


def main(arguments: list[str] | None = None) -> int:
    """Run the job of a file and write what was found to another."""
    return answer(sys.argv[1:] if arguments is None else arguments, watch)


if __name__ == "__main__":
    sys.exit(main())
