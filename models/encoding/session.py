"""ONNX Runtime as encoders run it: threads that do not spin, no memory kept, the fastest provider."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models.encoding.contract import EncoderError
from models.providers import Provider, session_on

__all__ = ["open_session"]


def open_session(model: Path, threads: int, provider: Provider = "auto") -> Any:
    """Return an ONNX Runtime session of a file. Raises EncoderError."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # A spinning thread takes a core from the services beside us and saves little in batches of 20 ms.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Sizes differ from batch to batch: an arena would keep the memory of the largest for ever.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    try:
        return session_on(provider, str(model), options)
    except Exception as error:
        raise EncoderError(f"{model} is not an ONNX model that runs here: {error}") from error
