"""A log of tiles, the feature view that follows it, and the score view: what the tests of scoring play in."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from scoring_model import VIEW

from features.keys import entity_key, field, unwrap_bytes
from features.latest import LatestReader
from features.merge import merge
from features.plan import load
from features.tiles import from_record
from features.writer import FeatureWriter
from models.artifact import Description
from models.lifecycle import Lifecycle, decision
from schemas.codec import Decoder, Encoder
from schemas.envelope import headers
from streams.scoring.served import ServedModels
from streams.scoring.settings import ScoringSettings
from streams.scoring.store import ScoreStore
from streams.views.score_view import ScoreView
from tests.lake_tables import FakeMessage, schema_of

PLAN = load(project="scoring")
TILES = PLAN.views[VIEW]
HOUR = 3_600_000
NOON = 1_500_000_000_000 // HOUR * HOUR
SCORES = Decoder.of_topic("scores", schema_of("scores"))
ENCODE = Encoder(TILES.topic, 1).encode


def clock() -> float:
    """The wall clock of these tests, s: some time after all that happens in them."""
    return NOON / 1000 + 100 * 86_400


class CrashError(Exception):
    pass


class Topic:
    """The scores topic; it outlives a crash of the view."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self.away = self.crash = False
        self._queued: list[bytes] = []

    def produce(self, name: str, value: bytes, **_: Any) -> None:
        assert name == "scores"
        self._queued.append(value)

    def flush(self, _timeout: float) -> int:
        queued, self._queued = self._queued, []
        if self.away:
            self.away = False
            return len(queued) + 1
        self.records += [SCORES.decode(value) for value in queued]
        if self.crash:
            self.crash = False
            raise CrashError
        return 0


def registry_of(told: Description, where: Path) -> Lifecycle:
    found = Lifecycle()
    for at, stage in enumerate(("registered", "champion")):
        found.apply(
            decision(
                found.state(told.name), told.version, stage, "x", cause=f"c{at}", event_time=NOON,
                reason="gates", artifact=str(where),
            ),
            at,
        )  # fmt: skip
    return found


class World:
    """A log of tiles, a feature view that follows it, and the score view."""

    def __init__(self, client: Any, where: Path, told: Description, bucket_s: float = 3600.0) -> None:
        client.flushall()
        self.client, self.topic, self.bucket_s = client, Topic(), bucket_s
        self.writer = FeatureWriter(client, TILES, PLAN.project, clock=clock)
        self.models = ServedModels(PLAN)
        self.models.refresh(registry_of(told, where))
        self.log: list[FakeMessage] = []
        self.amounts: defaultdict[tuple[str, str, int], list[tuple[float, int]]] = defaultdict(list)
        self.settings = ScoringSettings(bucket_s=bucket_s, wait_s=0.01)
        self.restart()

    def restart(self) -> None:
        store = ScoreStore(self.client, PLAN.project)
        self.view = ScoreView(
            store, LatestReader(self.client, PLAN), self.models, PLAN, [TILES.topic], self.topic,  # type: ignore[arg-type]
            schema_of(TILES.topic), lambda: 7, self.settings, clock,
        )  # fmt: skip
        self.next = self.view.positions().get((TILES.topic, 0), 0)

    def order(self, dealer: str, category: str, amount: float, at: int) -> None:
        hop = at // TILES.hop_ms * TILES.hop_ms
        had = self.amounts[dealer, category, hop]
        had.append((amount, at))
        record = {
            "dealer_id": dealer, "category": category, "grain": TILES.hop_ms // 1000, "hop": hop, "n": len(had),
            "amount_sum": sum(a for a, _ in had), "amount_max": max(a for a, _ in had),
            "quantity_sum": float(len(had)), "max_event_time": max(t for _, t in had), "max_ingest_time": None,
            "positions": [len(self.log)],
        }  # fmt: skip
        offset = len(self.log)
        head = headers(f"t{offset}", TILES.topic, "test", at, dealer)
        self.log.append(FakeMessage(TILES.topic, 0, offset, ENCODE(record), head=head))
        self.folded = (dealer, category), from_record(TILES, record)

    def fold(self) -> None:
        """The feature view takes the newest tile in."""
        (entity, tile), behind = self.folded, {(TILES.topic, 0): len(self.log)}
        self.writer.write({entity: [tile]}, behind)

    def score(self, count: int = 10_000) -> None:
        batch = self.log[self.next : self.next + count]
        if batch:
            self.view.apply(batch)
            self.next += len(batch)

    def row(self, dealer: str, category: str, at: int) -> Any:
        """The entity's features at a moment, by the house's merge of all of the view."""
        key = entity_key(TILES, {"dealer_id": dealer, "category": category}, PLAN.project)
        return merge(TILES, unwrap_bytes(self.client.hget(key, field(VIEW, "tiles"))), at)
