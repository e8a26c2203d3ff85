"""The exported repository is what Triton's own definition of a configuration reads, and serves the champion."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from models.artifact import ArtifactError, load
from models.export.triton import TritonExportError, config_of, prepare
from models.lifecycle import LifecycleError, ModelState, Version
from models.runtime import Session
from tests.streams.scoring_model import INPUTS, folder


def registered(root: Path, *seeds: int) -> ModelState:
    state = ModelState("busy")
    for seed in seeds:
        where, told = folder(root / "from", "busy", seed=seed)
        state.versions[told.version] = Version(told.version, "registered", str(where))
    return state


def parsed(root: Path, name: str) -> Any:
    text = (root / name / "config.pbtxt").read_text("utf-8")
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def test_the_champion_is_what_triton_will_serve(tmp_path: Path) -> None:
    state, root = registered(tmp_path, 1, 2), tmp_path / "repository"
    first, second = state.versions
    state.champion = second
    for _ in range(2):  # again: nothing changes
        prepare(state, 512).write(root)
    config = parsed(root, "busy")
    assert (config.name, config.platform, config.backend) == ("busy", "onnxruntime_onnx", "onnxruntime")
    assert config.max_batch_size == 512
    assert list(config.version_policy.specific.versions) == [2]
    session = Session(root / "busy" / "2")
    for told, info in zip((*config.input, *config.output), session.tensors, strict=True):
        assert told.name == info.name
        assert [-1, *told.dims] == list(info.shape)
        assert model_config_pb2.DataType.Name(told.data_type) == "TYPE_FP32"
    assert config.parameters["dealeriq_version"].string_value == second
    assert config.parameters["columns"].string_value.split(",") == [each.name for each in INPUTS]
    x = np.random.default_rng(1).random((9, len(INPUTS)), np.float32)
    np.testing.assert_array_equal(session.run(x), Session(Path(state.versions[second].artifact)).run(x))
    # Rolled back: the earlier version is served under its own number, and the later one alone stays on disk.
    state.champion = first
    prepare(state, 512).write(root)
    assert list(parsed(root, "busy").version_policy.specific.versions) == [1]
    assert sorted(each.name for each in (root / "busy").iterdir()) == ["1", "2", "config.pbtxt"]


def test_what_cannot_be_exported_is_said(tmp_path: Path) -> None:
    state, root = registered(tmp_path, 1, 2), tmp_path / "repository"
    with pytest.raises(LifecycleError, match="no champion"):
        prepare(state, 512)
    first, state.champion = state.versions
    prepare(state, 512).write(root)
    (root / "busy" / "2").rename(root / "busy" / "1")
    state.champion = first
    with pytest.raises(TritonExportError, match="belongs there"):
        prepare(state, 512).write(root)
    with pytest.raises(TritonExportError, match="cannot be written"):
        prepare(state, 512).write(root / "busy" / "config.pbtxt")
    broken = Path(state.versions[first].artifact) / "model.onnx"
    broken.write_bytes(broken.read_bytes()[:-3])
    with pytest.raises(ArtifactError, match="cut short"):
        prepare(state, 512)


def test_words_are_quoted_as_protobuf_reads_them(tmp_path: Path) -> None:
    name = 'bus"y\\'
    where, _ = folder(tmp_path, "busy")
    told = replace(load(where)[0], name=name, run_id="ä\n'")
    config = text_format.Parse(config_of(told, 1, 8), model_config_pb2.ModelConfig())
    assert (config.name, config.parameters["run_id"].string_value) == (name, "ä\n'")
