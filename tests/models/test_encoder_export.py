"""Export through the command, in the environment that the lock describes, of models made by code."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from dealeriq.cli.encoders import app
from dealeriq.training import interpreter
from models.text import TextSettings, text_encoder

pytestmark = pytest.mark.timeout(1_500)  # the environment is 6 GB, once
TEXTS = ["Brake pads for the front axle", "a tin of paint", "", "where is my order " * 40]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("encoders")
    script = Path(__file__).with_name("tiny_models.py")
    command = [interpreter(environment="encoders"), str(script), str(root)]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2_000:]
    return root


def export(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dealeriq", "encoders", "export", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_model_of_sentences_answers_as_it_did_in_torch(made: Path) -> None:
    folder = made / "exported"
    ran = export(str(made / "sentences"), "--to", str(folder), "--json")
    assert ran.returncode == 0, ran.stderr[-2_000:]
    told = json.loads(ran.stdout)
    assert (told["name"], told["dimension"], told["text"]["max_tokens"]) == ("sentences", 32, 32)
    encoder = text_encoder(TextSettings(model=folder))
    wanted = np.load(made / "answers.npz")["sentences"]
    wanted = wanted / np.linalg.norm(wanted, axis=1, keepdims=True)
    assert np.einsum("ij,ij->i", encoder.encode(TEXTS), wanted).min() > 0.9999
    listed = json.loads(CliRunner().invoke(app, ["ls", str(made), "--json"]).stdout)["encoders"]
    assert [each["encoder"] for each in listed] == [encoder.identity]


def test_what_is_no_model_is_one_sentence_and_leaves_nothing(made: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    ran = export(str(empty), "--to", str(tmp_path / "out"))
    assert ran.returncode == 5
    assert f"dealeriq: {empty} cannot be exported" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["empty"]
