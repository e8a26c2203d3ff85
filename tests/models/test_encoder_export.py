"""Export through the command, in the environment that the lock describes, of models made by code.

That environment is 6 GB, most of it CUDA. Who has exported something has it, and runs these tests; others ask:

    TEST_EXPORTS=1 ./run test tests/models/test_encoder_export.py
"""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from typer.testing import CliRunner

from dealeriq.cli.encoders import app
from dealeriq.training import interpreter
from models.image import image_encoder
from models.settings import ImageSettings
from models.text import TextSettings, text_encoder

HOUSE = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.timeout(1_500),
    pytest.mark.skipif(
        not ((HOUSE / ".venv-encoders" / ".dealeriq").exists() or os.environ.get("TEST_EXPORTS")),
        reason="exporting needs torch and more, 6 GB that nothing else installs; TEST_EXPORTS=1 installs them",
    ),
]
TEXTS = ["Brake pads for the front axle", "a tin of paint", "", "where is my order " * 40]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("encoders")
    script = Path(__file__).with_name("tiny_models.py")
    command = [interpreter(environment="encoders"), str(script), str(root)]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2_000:]
    return root


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.einsum("ij,ij->i", one, other)


def answers(made: Path, name: str) -> np.ndarray:
    found = np.load(made / "answers.npz")[name]
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def images_of(folder: Path, made: Path) -> np.ndarray:
    encoder = image_encoder(ImageSettings(model=folder))
    files = [made / f"{name}.png" for name in ("wide", "high", "square")]
    return encoder.encode([encoder.read(each.read_bytes()) for each in files])


def drawn(shape: str, at: int) -> bytes:
    picture = Image.new("RGB", (300, 260), (230, 230, 225))
    pen = ImageDraw.Draw(picture)
    if shape == "ellipse":
        pen.ellipse((40 + at, 30, 200 + at, 200), fill=(200, 30 + at, 40))
    else:
        for line in range(0, 300, 24):
            pen.rectangle((line, 0, line + 10, 260), fill=(20, 40, 120 + at))
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


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
    assert cosines(encoder.encode(TEXTS), answers(made, "sentences")).min() > 0.9999
    listed = json.loads(CliRunner().invoke(app, ["ls", str(made), "--json"]).stdout)["encoders"]
    assert [each["encoder"] for each in listed] == [encoder.identity]


def test_a_name_on_the_hub_is_found_where_the_hub_was_asked_before(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    revision = "0" * 40  # a cache as huggingface_hub lays it out: a machine without the hub has what it got
    kept = tmp_path / "hub" / "models--acme--parts"
    shutil.copytree(made / "sentences", kept / "snapshots" / revision)
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text(revision)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    ran = export("acme/parts", "--to", str(tmp_path / "parts"), "--json")
    assert ran.returncode == 0, ran.stderr[-2_000:]
    assert json.loads(ran.stdout)["name"] == "parts"
    encoder = text_encoder(TextSettings(model=tmp_path / "parts"))
    assert cosines(encoder.encode(TEXTS), answers(made, "sentences")).min() > 0.9999
    gone = export("acme/none", "--to", str(tmp_path / "none"))
    assert gone.returncode == 5
    assert "acme/none cannot be exported" in gone.stderr
    assert "Traceback" not in gone.stderr


@pytest.mark.parametrize("name", ["vit", "resnet", "resnet-whole"])
def test_a_model_of_images_sees_as_it_did_in_torch(made: Path, name: str) -> None:
    folder = made / f"exported-{name}"
    ran = export(str(made / name), "--to", str(folder))
    assert ran.returncode == 0, ran.stderr[-2_000:]
    assert ran.stdout.strip() == str(folder)
    assert f'set image.model = "{folder}"' in ran.stderr
    assert cosines(images_of(folder, made), answers(made, name)).min() > 0.9999


def test_clip_puts_texts_and_images_into_one_space(made: Path) -> None:
    folder = made / "exported-clip"
    ran = export(str(made / "clip"), "--to", str(folder), "--json")
    assert ran.returncode == 0, ran.stderr[-2_000:]
    assert len(json.loads(ran.stdout)["parity"]) == 4
    texts, images = text_encoder(TextSettings(model=folder)), image_encoder(ImageSettings(model=folder))
    assert texts.identity == images.identity
    found, seen = texts.encode(TEXTS), images_of(folder, made)
    wanted, shown = answers(made, "clip_texts"), answers(made, "clip_images")
    assert cosines(found, wanted).min() > 0.9999
    assert cosines(seen, shown).min() > 0.9999
    assert np.allclose(
        found @ seen.T, wanted @ shown.T, atol=1e-3
    )  # what a search for a picture by text compares


def test_the_carried_model_of_images_tells_shapes_apart(made: Path) -> None:
    folder = made / "lite0"
    ran = export("efficientnet-lite0", "--to", str(folder), "--json")
    assert ran.returncode == 0, ran.stderr[-2_000:]
    assert json.loads(ran.stdout)["dimension"] == 1_280
    discs = [drawn("ellipse", at) for at in (0, 30)]
    stripes = [drawn("stripes", at) for at in (0, 30)]
    encoder = image_encoder(ImageSettings(model=folder))
    one, two, three, four = encoder.encode([encoder.read(each) for each in (*discs, *stripes)])
    assert min(one @ two, three @ four) > max(one @ three, one @ four, two @ three, two @ four)


def test_what_is_no_model_is_one_sentence_and_leaves_nothing(made: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    ran = export(str(empty), "--to", str(tmp_path / "out"))
    assert ran.returncode == 5
    assert f"dealeriq: {empty} cannot be exported" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["empty"]
