"""What is kept only because it is beyond a threshold is in no statistic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models.monitoring.scored import read_pairs, read_scored
from models.training.events import Stream
from tests.lake_tables import write_events

NOON, DAY = 1_500_000_000_000, 86_400_000


def record(number: int, version: str, sampled: bool) -> dict[str, Any]:
    return {
        "event_id": f"{version}-{number}", "dealer_id": "d", "model": "m", "model_version": version,
        "subject_type": "order", "subject_id": f"line-{number}", "score": 0.1, "features": {"a": float(number)},
        "latency_ms": 0.1, "shadow": version == "v2", "outputs": {"o": 0.1},
        "entity": {"event_id": f"l{number}"},
        "decided_at": 2 if version == "v2" else 1, "readings": [], "sampled": sampled, "cause_id": f"l{number}",
        "event_time": NOON + number,
    }  # fmt: skip


def test_only_the_even_sample_is_judged(tmp_path: Path) -> None:
    records = [record(n, version, n % 3 > 0) for n in range(30) for version in ("v1", "v2")]
    write_events(tmp_path / "lake", "scores", records)
    even = [float(n) for n in range(30) if n % 3]
    with Stream(tmp_path / "lake") as stream:
        scored = read_scored(
            stream, "m", "v1", NOON, NOON + DAY, DAY, entity=("event_id",), inputs=("a",), outputs=("o",)
        )
        pairs = read_pairs(stream, "m", "v1", "v2", 2, DAY, begin_ms=NOON, entity=("event_id",), outputs=("o",))
    assert sorted(scored.x[:, 0].tolist()) == even
    assert len(pairs.scored) == len(even)
