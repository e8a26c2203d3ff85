"""A version made by hand, without a run or a verdict, and its scores as the stream would have given them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from features.history import History
from features.plan import load
from models.artifact import Description, save, version_of
from models.monitoring.reference import save_reference
from models.runtime import Session
from models.specs import spec as spec_of
from models.training.events import Stream
from models.training.reference import draw_reference
from models.training.sets import build, split
from streams.scoring.scorer import subjects_of
from tests.lake_tables import write_events

DAY = 86_400_000


def serve(model: str, lake: Path, folder: Path, as_of_ms: int, *, seed: int = 7) -> Session:
    """Train a version as of a moment, and save it with its reference."""
    spec, plan = spec_of(model), load()
    data = build(spec, plan, lake, as_of_ms=as_of_ms)
    parts = split(data)
    onnx = spec.train(data, parts.fit, parts.tune, seed).to_onnx()
    version = version_of(as_of_ms, onnx, data.inputs, spec.version)
    told = Description(
        spec.name, version, spec.version, spec.entity, spec.subject_type, data.inputs, spec.outputs, spec.score,
        hashlib.sha256(onnx).hexdigest(), as_of_ms,
    )  # fmt: skip
    session = Session(save(folder / model / version, told, onnx))
    reference = draw_reference(
        spec, plan, lake, session, from_ms=int(data.time[parts.holdout].min()), as_of_ms=as_of_ms
    )
    assert reference is not None
    save_reference(session.folder, reference)
    return session


def score(
    session: Session, lake: Path, from_ms: int, until_ms: int, *, shadow: bool = False, every_ms: int = DAY
) -> int:
    """Write a score of each entity's first order in each stretch of `every_ms`; return how many."""
    told = session.description
    keys = ", ".join(told.entity)
    with Stream(lake) as stream:
        rows = stream.query(
            "orders", told.entity,
            f"SELECT {keys}, event_time AS event_timestamp FROM once QUALIFY row_number() OVER "
            f"(PARTITION BY {keys}, event_time // {every_ms} ORDER BY event_time) = 1 ORDER BY event_time",
            where=f"event_time >= {from_ms} AND event_time < {until_ms}",
        )  # fmt: skip
    with History(load(), told.features, lake) as history:
        values = history.of(rows)
    time = rows["event_timestamp"].to_numpy()
    vectors = session.vectors({name: values[name] for name in values.column_names}, time)
    answers = session.run(vectors)
    records = []
    entities = rows.select(list(told.entity))
    subjects = subjects_of(entities.to_pydict(), told.entity)
    for at, (entity, subject) in enumerate(zip(entities.to_pylist(), subjects, strict=True)):
        given = vectors[at].astype(float).tolist()
        outputs = dict(zip(told.outputs, answers[at].astype(float).tolist(), strict=True))
        records.append(
            {
                "event_id": f"{told.version}-{subject}-{time[at]}", "dealer_id": entity["dealer_id"],
                "model": told.name, "model_version": told.version, "subject_type": told.subject_type,
                "subject_id": subject, "score": outputs[told.score],
                "features": {
                    each.name: value if np.isfinite(value) else None
                    for each, value in zip(told.inputs, given, strict=True)
                },
                "latency_ms": 0.1, "shadow": shadow, "outputs": outputs, "entity": entity, "decided_at": 1,
                "readings": [], "cause_id": f"{subject}-{time[at]}", "event_time": int(time[at]),
            }
        )  # fmt: skip
    write_events(lake, "scores", records)
    return len(records)
