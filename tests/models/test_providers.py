"""What ONNX Runtime is asked to compute on, and what is said where that is not there."""

import onnxruntime
import pytest

from models.encoding.session import open_session
from models.providers import providers
from models.settings import TextSettings
from models.text import packaged_encoder

TENSORRT, CUDA, CPU = "TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"


@pytest.mark.parametrize(
    ("there", "wanted", "order"),
    [
        ([CPU], "auto", [CPU]),
        ([CPU, "AzureExecutionProvider", CUDA, TENSORRT], "auto", [TENSORRT, CUDA, CPU]),
        ([CUDA, CPU], "auto", [CUDA, CPU]),
        ([TENSORRT, CUDA, CPU], "cuda", [CUDA, CPU]),
        ([TENSORRT, CUDA, CPU], "cpu", [CPU]),
        ([CPU], "tensorrt", [CPU]),
    ],
)
def test_the_fastest_that_is_there_comes_first_and_the_cpu_last(monkeypatch, there, wanted, order):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: there)
    assert providers(wanted) == order


def test_who_names_a_provider_that_is_not_there_is_told_and_served_by_the_cpu(monkeypatch, capsys):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    usual = packaged_encoder()
    assert "provider_not_there" not in capsys.readouterr().err
    asked = packaged_encoder(TextSettings(provider="cuda"))
    told = capsys.readouterr().err
    assert "provider_not_there" in told
    assert "onnxruntime-gpu" in told
    assert (asked.encode(["brake pads"]) == usual.encode(["brake pads"])).all()


def test_a_file_that_is_no_model_is_an_error_of_its_own(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(Exception, match="is not an ONNX model that runs here"):
        open_session(tmp_path / "model.onnx", 1)
