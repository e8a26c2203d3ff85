"""One suite for every model that is registered: to register one is to give it these tests."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from features.plan import load
from models.artifact import MODEL, ArtifactError, Description, save, version_of
from models.export.parity import ParityError, check, nasty
from models.inputs import InputsError, input_of, needed
from models.runtime import Session
from models.spec import ModelSpec
from models.specs import UnknownModelError, spec, specs
from models.training.metrics import SMALLER
from models.training.sets import build
from tests.models.conftest import Trained


@pytest.mark.parametrize("model", specs().values(), ids=str)
class TestDeclarations:
    def test_it_names_what_exists(self, model: ModelSpec) -> None:
        names = [each.name for each in model.inputs]
        assert len(set(names)) == len(names) >= 1
        assert model.score in model.outputs
        plan = load()
        for name in model.features():
            view, _, feature = name.partition(".")
            assert feature in {each.name for each in plan.views[view].features}

    def test_its_inputs_survive_json(self, model: ModelSpec) -> None:
        assert tuple(input_of(json.loads(json.dumps(each.to_dict()))) for each in model.inputs) == model.inputs

    def test_its_rules_look_at_what_it_gives(self, model: ModelSpec) -> None:
        names = {each.name for each in model.inputs}
        assert model.rules or "dealer_id" not in model.entity or not model.in_stream
        for rule in model.rules:
            assert rule.output in model.outputs
            assert not rule.over or rule.over in names


class TestTraining:
    def test_rows_are_known_and_labelled(self, trained: Trained) -> None:
        data = trained.data
        assert set(trained.spec.entity) <= set(data.frame.column_names)
        assert np.isfinite(data.y).all()
        assert (data.time + trained.spec.label.known_after_ms <= data.as_of_ms).all()
        read = data.origin["label_versions"] | data.origin["versions"]
        assert any(version is not None for version in read.values())

    def test_parts_are_apart_by_the_labels_delay(self, trained: Trained) -> None:
        parts, time, delay = trained.parts, trained.data.time, trained.spec.label.known_after_ms
        assert time[parts.fit].max() + delay <= time[parts.tune].min()
        assert time[parts.tune].max() + delay <= time[parts.holdout].min()

    def test_the_same_data_and_seed_give_the_same_file(self, trained: Trained) -> None:
        again = trained.spec.train(trained.data, trained.parts.fit, trained.parts.tune, 7)
        assert again.to_onnx() == trained.fitted.to_onnx()

    def test_it_is_better_than_the_naive_answer(self, trained: Trained) -> None:
        spec, data, at = trained.spec, trained.data, trained.parts.holdout
        truth = spec.truth(data, at)
        model = spec.metrics(truth, trained.fitted.predict(data.x[at]))[spec.gate.metric]
        naive = spec.metrics(truth, spec.baseline(data, at))[spec.gate.metric]
        assert (model < naive) if spec.gate.metric in SMALLER else (model > naive)

    def test_segments_and_cold_rows_are_rows(self, trained: Trained) -> None:
        parts = {**trained.spec.segments(trained.data), "cold": trained.spec.cold(trained.data)}
        for name, rows in parts.items():
            assert rows.dtype == np.bool_, name
            assert len(rows) == len(trained.data), name


class TestServing:
    def folder(self, trained: Trained, root: Path) -> Path:
        onnx, data, spec = trained.fitted.to_onnx(), trained.data, trained.spec
        version = version_of(data.as_of_ms, onnx, data.inputs, spec.version)
        told = Description(
            spec.name, version, spec.version, spec.entity, spec.subject_type, data.inputs, spec.outputs,
            spec.score,
            hashlib.sha256(onnx).hexdigest(), data.as_of_ms, rules=spec.rules,
        )  # fmt: skip
        return save(root / spec.name / version, told, onnx)

    def test_the_file_answers_as_the_library_did(self, trained: Trained, tmp_path: Path) -> None:
        rows = trained.data.x[trained.parts.holdout]
        found = check(trained.fitted, trained.fitted.to_onnx(), rows)
        assert found.rows > len(rows)
        session = Session(self.folder(trained, tmp_path))
        wanted = trained.fitted.predict(rows)
        assert np.allclose(session.run(rows), wanted, rtol=1e-4, atol=1e-4)
        alone = np.concatenate([session.run(rows[at : at + 1]) for at in range(32)])
        assert np.array_equal(alone, session.run(rows[:32]))  # to the bit, whatever the batch

    def test_nasty_rows_get_an_answer(self, trained: Trained, tmp_path: Path) -> None:
        session = Session(self.folder(trained, tmp_path))
        assert np.isfinite(session.run(nasty(trained.data.x, seed=3))).all()

    def test_the_served_vector_is_the_trained_one(self, trained: Trained, tmp_path: Path) -> None:
        """Values as the online reader gives them, through the artefact alone, make the vector of training."""
        session = Session(self.folder(trained, tmp_path))
        some = trained.parts.holdout[:50]
        frame: pa.Table = trained.data.frame.take(pa.array(some))
        columns = {name: frame[name].to_pylist() for name in frame.column_names}
        vectors = session.vectors(columns, trained.data.time[some])
        assert np.array_equal(vectors, trained.data.x[some], equal_nan=True)
        missing = dict(columns)
        missing.pop(needed(trained.data.inputs)[0])
        with pytest.raises(InputsError, match="no column"):
            session.vectors(missing, trained.data.time[some])

    def test_a_broken_export_is_caught(self, trained: Trained) -> None:
        other = trained.spec.train(trained.data, trained.parts.fit[::3], trained.parts.tune, 11)
        with pytest.raises(ParityError, match="in the library"):
            check(trained.fitted, other.to_onnx(), trained.data.x[trained.parts.holdout])

    def test_a_cut_or_foreign_file_is_refused(self, trained: Trained, tmp_path: Path) -> None:
        folder = self.folder(trained, tmp_path)
        whole = (folder / MODEL).read_bytes()
        (folder / MODEL).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ArtifactError, match="cut short, or of another model"):
            Session(folder)
        (folder / MODEL).unlink()
        with pytest.raises(ArtifactError, match="cannot be read"):
            Session(folder)

    def test_it_loads_without_any_training_library(self, trained: Trained, tmp_path: Path) -> None:
        code = (
            "import sys; from pathlib import Path; from models.runtime import Session; "
            f"Session(Path({str(self.folder(trained, tmp_path))!r})); "
            "print([n for n in ('mlflow', 'lightgbm', 'sklearn', 'pandas', 'torch', 'feast', 'pyarrow') "
            "if n in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"


def test_a_model_that_is_not_there_is_named_with_a_near_one() -> None:
    with pytest.raises(UnknownModelError, match="did you mean demand_forecast"):
        spec("demand_forcast")


def test_a_model_is_a_file_and_nothing_else(tmp_path: Path) -> None:
    """A new file in models/specs is found without touching another one."""
    code = (
        "import models.specs as s, sys; s.__path__.append(sys.argv[1]); "
        "import importlib; print(sorted(s.specs()))"
    )
    source = (Path(specs.__module__.replace(".", "/")) / "demand_forecast.py").read_text()
    (tmp_path / "other.py").write_text(source.replace('name = "demand_forecast"', 'name = "other"'))
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert "'other'" in done.stdout


def test_a_set_needs_rows(tmp_path: Path) -> None:
    from models.training.sets import NotEnoughDataError

    with pytest.raises(NotEnoughDataError, match="no event of orders"):
        build(spec("demand_forecast"), load(), tmp_path)
