"""From messages of `orders` to messages of `scores`: a function of a batch, whoever hosts it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from connectors.topic_columns import TopicColumns
from features.plan import Plan
from models.canary import in_share
from models.inputs import event_column
from streams.lines.features import LineFeatures
from streams.lines.models import STAGE, LineModels, ServedLines
from streams.lines.scorer import KEYS, LineScorer, Scored
from streams.metrics import StageMeters
from streams.scoring.producing import SCORES, Caused
from streams.scoring.scores import Scores
from streams.scoring.settings import ScoringSettings
from streams.transactional import Outgoing

__all__ = ["LineStage"]


class LineStage:
    """Scores order lines by the models that are served when a batch begins.

    Every line is scored; a score is kept where it passes a rule's threshold, or its line is of the even sample.
    Outcomes that are counted: `scored`, `shadow` (answered by a challenger), `produced`, `told` (beyond a
    threshold), `without_score` (the answer is no number), `refused` (cannot be read or breaks its contract: a
    dead letter of the tile job), `unserved` (no model).

    Args:
        models: what is served.
        redis: the online store, answering bytes.
        plan: the compiled feature plan.
        fetch_schema: schema of a registry id (`Registry.schema`).
        schema_id: the registry's id of the schema of scores.
        clock: the wall clock, s since the epoch.
    """

    topics = ("orders",)

    def __init__(
        self,
        models: LineModels,
        redis: Any,
        plan: Plan,
        fetch_schema: Callable[[int], Any],
        schema_id: int,
        settings: ScoringSettings | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._models, self._redis, self._plan, self._clock = models, redis, plan, clock
        self._settings = settings or ScoringSettings()
        self._fetch, self._schema_id = fetch_schema, schema_id
        self._meters = StageMeters(STAGE)
        self._wanted: dict[str, tuple[str, ...]] = {}
        self._fields: tuple[str, ...] = ()
        self._features: LineFeatures | None = None
        self._columns: TopicColumns | None = None

    def handle(self, messages: Sequence[Any]) -> list[Outgoing]:
        """Return what the messages come to.

        Raises redis errors, CorruptBlobError, and what the registry raises.
        """
        served = self._models.current()
        if not served:
            self._meters.count("unserved", len(messages))
            return []
        columns, features = self._reading(served)
        batch = columns.read([message.value() for message in messages])
        self._count(refused=len(batch.refused))
        if not len(batch.rows):
            return []
        times = batch.table["event_time"].to_numpy()
        now_ms = int(self._clock() * 1000)
        # An event dated after the wall clock is seen with the features of now.
        known: dict[str, Any] = dict(features.of(batch.table, np.minimum(times, now_ms)))
        known |= {event_column(name): batch.table[name] for name in self._fields}
        known |= {name: batch.table[name] for name in KEYS}
        out: list[Outgoing] = []
        for each in served.values():
            out += self._score(each, batch.table, known, times, [messages[i] for i in batch.rows.tolist()])
        stamps = [messages[-1].timestamp()[1], messages[0].timestamp()[1]]
        self._meters.freshness([max(self._clock() - each / 1000, 0.0) for each in stamps])
        self._meters.event_time(int(times.max()))
        return out

    def _reading(self, served: dict[str, ServedLines]) -> tuple[TopicColumns, LineFeatures]:
        """The columns and features that the served versions read; kept until others are served."""
        wanted: dict[str, tuple[str, ...]] = {}
        fields: tuple[str, ...] = ()
        for pair in served.values():
            for view, names in pair.features.items():
                wanted[view] = tuple(dict.fromkeys((*wanted.get(view, ()), *names)))
            for scorer in pair.scorers:
                fields = tuple(dict.fromkeys((*fields, *scorer.fields)))
        if self._columns is None or fields != self._fields:
            self._fields = fields
            names = list(dict.fromkeys([*KEYS, "event_time", *fields]))
            self._columns = TopicColumns("orders", names, self._fetch)
        if self._features is None or wanted != self._wanted:
            self._wanted = wanted
            bucket_ms = max(1, round(self._settings.line_bucket_s * 1000))
            self._features = LineFeatures(self._redis, self._plan, wanted, bucket_ms)
        return self._columns, self._features

    def _score(
        self, served: ServedLines, lines: pl.DataFrame, known: dict[str, Any], times: NDArray[np.int64],
        messages: Sequence[Any],
    ) -> list[Outgoing]:  # fmt: skip
        champion, challenger = served.champion, served.challenger
        scored = champion.answer(known, times)
        beside = None if challenger is None else self._beside(challenger, known, times)
        ids = lines["event_id"].to_list()
        sampled = self._sampled(lines)
        answered = scored.answered
        keep = (sampled | scored.told) & answered
        if challenger is not None and beside is not None:
            # Both versions' scores of a line are kept, or neither's: else they could not be compared.
            keep |= (sampled | beside.told) & answered & beside.answered
        rows = np.flatnonzero(keep)
        left = np.zeros(len(rows), bool)
        if challenger is not None and beside is not None and challenger.share > 0:
            left = np.array(
                [in_share(champion.model, ids[row], challenger.share) for row in rows.tolist()], bool
            )
            left &= beside.answered[rows]
        out = self._outgoing(champion, champion.scores(lines, scored, rows, sampled[rows], ~left), messages)
        self._count(
            scored=int(answered.sum()), without_score=int((~answered).sum()), produced=len(out),
            told=int(scored.told.sum()), canary=int(left.sum()),
        )  # fmt: skip
        if challenger is not None and beside is not None:
            both = np.flatnonzero(beside.answered[rows])
            others = challenger.scores(lines, beside, rows[both], sampled[rows[both]], left[both])
            self._count(shadow=int(beside.answered.sum()))
            out += self._outgoing(challenger, others, messages)
        return out

    def _beside(self, challenger: LineScorer, known: dict[str, Any], times: NDArray[np.int64]) -> Scored | None:
        try:
            return challenger.answer(known, times)
        except Exception as error:  # a challenger that fails must cost nobody a score
            self._meters.error(error)
            return None

    def _sampled(self, lines: pl.DataFrame) -> NDArray[np.bool_]:
        share = self._settings.line_sample
        if share in (0.0, 1.0):
            return np.full(len(lines), bool(share))
        ids = lines["event_id"].cast(pl.Binary).to_list()
        hashes = np.fromiter(map(xxh3_64_intdigest, ids), np.uint64, len(ids))
        return np.asarray(hashes < np.uint64(share * 2**64))

    def _outgoing(self, scorer: LineScorer, scores: Scores, messages: Sequence[Any]) -> list[Outgoing]:
        caused = Caused(scorer, scores, [messages[row] for row in scores.rows.tolist()])
        return [Outgoing(SCORES, *each) for each in caused.messages(self._schema_id, STAGE)]

    def _count(self, **outcomes: int) -> None:
        for outcome, records in outcomes.items():
            if records:
                self._meters.count(outcome, records)
