"""The watch over vectors: what it reads of a lake, and what it tells, once, on real services."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import uuid

import numpy as np
import pytest

from connectors.lake import Lake
from dealeriq.embedding_watch import EmbeddingWatch
from models.embedding.observation import SeenLog
from models.embedding.watch import judge
from models.embedding.windows import VectorHistory
from models.settings import EmbeddingSettings
from schemas.validate import problems
from tests.lake_tables import write_events

DAY = 86_400_000
BEGIN = 17_500 * DAY
SETTINGS = EmbeddingSettings(window_days=1, reference_windows=3, false_alarms=0.01, least_owners=30)


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype("<f4")


def record(owner, chunk, vector, time_ms, encoder="old@1"):
    return {
        "chunk_id": f"{owner}-{chunk}", "subject_type": "product", "subject_id": owner, "chunk": chunk,
        "kind": "text", "encoder": encoder, "dimension": len(vector), "vector": unit(vector).tobytes(),
        "fingerprint": "f", "text": "t", "dealer_id": None, "event_time": time_ms,
    }  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Four days of 40 owners that are alike, then one of others; a part of them by another encoder, too."""
    folder, rng, records = tmp_path_factory.mktemp("lake"), np.random.default_rng(4), []
    turn, _ = np.linalg.qr(rng.normal(size=(8, 8)))
    for day in range(5):
        for number in range(40):
            for chunk in range(1 + number % 2):
                vector = rng.normal(size=8) + (3.0 if day == 4 else 0.0) * np.eye(8)[0]
                time_ms = BEGIN + day * DAY + number * 1_000
                records.append(record(f"p{day}-{number}", chunk, vector, time_ms))
                if day == 0:
                    records.append(record(f"p{day}-{number}", chunk, unit(vector) @ turn, time_ms + 1, "new@1"))
    records.append(record("p0-0", 0, np.ones(8), BEGIN + 5))  # the chunk again, in the same window
    records.append(record("late", 0, np.ones(8), BEGIN + 5 * DAY + 2 * 3_600_000))
    write_events(folder, "embeddings", records)
    return Lake(str(folder)), records


def test_windows_are_judged_once_they_have_closed(written) -> None:
    lake, _ = written
    seen = judge(lake, SETTINGS)
    shifts = [each for each in seen if each.monitor == "shift"]
    assert [(each.window_start, each.alarm, each.owners) for each in shifts] == [
        (BEGIN + 3 * DAY, False, 40),
        (BEGIN + 4 * DAY, True, 40),
    ]
    assert shifts[1].value > shifts[1].limit > shifts[0].value
    for each in seen:
        assert not problems("embeddings.monitors", each.record())
    done = {each.event_id for each in seen}
    assert len(done) == len(seen)
    assert judge(lake, SETTINGS, done) == []
    later = SETTINGS.model_copy(update={"reference_windows": 4})
    assert [each.alarm for each in judge(lake, later) if each.monitor == "shift"] == [True]


def test_an_owner_counts_once_with_the_mean_of_its_newest_chunks(written) -> None:
    lake, records = written
    with VectorHistory(lake, ["embeddings"], DAY) as history:
        (series,) = [each for each in history.series() if each.encoder == "old@1"]
        sample = history.sample(series, [BEGIN], 1_000)
        few = history.sample(series, [BEGIN], 7)
    newest = {}
    for each in records:
        if each["encoder"] == "old@1" and each["event_time"] < BEGIN + DAY:
            newest[each["chunk_id"]] = (each["subject_id"], np.frombuffer(each["vector"], "<f4"))
    for owner, vector in zip(sample.owners, sample.vectors, strict=True):
        chunks = [row for name, row in newest.values() if f"product/{name}" == owner]
        assert vector == pytest.approx(unit(np.mean(chunks, axis=0)), abs=1e-6)
    assert len(sample) == 40
    assert set(few.owners) < set(sample.owners)
    assert len(few) == 7


def test_two_encoders_are_held_beside_each_other(written) -> None:
    (overlap,) = [each for each in judge(written[0], SETTINGS) if each.monitor == "overlap"]
    assert (overlap.encoder, overlap.other, overlap.owners) == ("new@1", "old@1", 60)
    assert overlap.value > 0.9  # one is the other, turned, but for the chunk that was encoded again
    assert not overlap.alarm


def test_the_command_tells_it_and_its_exit_code(written) -> None:
    variables = {
        "DEALERIQ_LAKE__URL": written[0].url,
        "DEALERIQ_EMBEDDINGS__WINDOW_DAYS": "1",
        "DEALERIQ_EMBEDDINGS__REFERENCE_WINDOWS": "3",
    }
    command = [sys.executable, "-m", "dealeriq", "embeddings", "drift"]
    ran = subprocess.run([*command, "--json"], env=os.environ | variables, capture_output=True, timeout=240)
    assert ran.returncode == 1, ran.stderr
    assert json.loads(ran.stdout) == [each.as_dict() for each in judge(written[0], SETTINGS)]


@pytest.mark.services
@pytest.mark.timeout(300)
def test_what_was_seen_is_told_once_also_after_a_restart(stack, tmp_path) -> None:
    kind_of = f"e{uuid.uuid4().hex[:8]}@1"
    rng = np.random.default_rng(6)
    records = [
        record(f"p{day}-{number}", 0, rng.normal(size=8) + (3 if day == 3 else 0), BEGIN + day * DAY, kind_of)
        for day in range(4)
        for number in range(30)
    ]
    records.append(record("late", 0, np.ones(8), BEGIN + 5 * DAY, kind_of))
    write_events(tmp_path, "embeddings", records)
    settings = stack.model_copy(deep=True)
    settings.lake.url, settings.embeddings = str(tmp_path), SETTINGS
    (seen,) = EmbeddingWatch(settings, threading.Event()).look()
    assert seen.alarm
    assert EmbeddingWatch(settings, threading.Event()).look() == []
    with SeenLog(settings.kafka, settings.registry) as log:
        assert [each for each in log.catch_up() if each.encoder == kind_of] == [seen]
