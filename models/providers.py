"""What ONNX Runtime computes on, here: TensorRT, CUDA or the CPU."""

from __future__ import annotations

from typing import Any, Literal

__all__ = ["Provider", "providers", "session_on"]

Provider = Literal["auto", "tensorrt", "cuda", "cpu"]
_ORDER = {
    "tensorrt": "TensorrtExecutionProvider", "cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider",
}  # fmt: skip


def providers(wanted: Provider = "auto") -> list[str]:
    """Return ONNX Runtime's providers in the order to try: TensorRT, CUDA, CPU, of those that are there.

    `wanted` other than "auto" (tensorrt, cuda, cpu) starts at that one; the CPU is always the last.
    """
    import onnxruntime

    there = onnxruntime.get_available_providers()
    names = list(_ORDER)
    start = 0 if wanted == "auto" else names.index(wanted)
    return [_ORDER[each] for each in names[start:] if _ORDER[each] in there]


def session_on(wanted: Provider, model: str | bytes, options: Any) -> Any:
    """Return an ONNX Runtime session of a file or of its bytes; what ONNX Runtime raises passes through.

    A build for graphics cards names its providers on a machine without a card or its libraries, too, and then
    computes on the CPU. Whoever named another provider is told, for the log is where it would be looked for.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(model, options, providers=providers(wanted))
    found = session.get_providers()[0]
    if wanted != "auto" and found != _ORDER[wanted]:
        from connectors.log import get_logger  # an environment that exports models has no log

        get_logger(__name__).warning(
            "provider_not_there",
            wanted=wanted,
            computes_on=found,
            remedy="Install onnxruntime-gpu in the place of onnxruntime, and the CUDA libraries it asks for.",
        )
    return session
