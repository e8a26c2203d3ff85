"""What ONNX Runtime computes on, here: TensorRT, CUDA or the CPU."""

from __future__ import annotations

from typing import Literal

__all__ = ["Provider", "providers"]

Provider = Literal["auto", "tensorrt", "cuda", "cpu"]
_ORDER = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")


def providers(wanted: Provider = "auto") -> list[str]:
    """Return ONNX Runtime's providers in the order to try: TensorRT, CUDA, CPU, of those that are there.

    `wanted` other than "auto" (tensorrt, cuda, cpu) starts at that one; the CPU is always the last.
    """
    import onnxruntime

    there = onnxruntime.get_available_providers()
    start = {"auto": 0, "tensorrt": 0, "cuda": 1, "cpu": 2}[wanted]
    return [each for each in _ORDER[start:] if each in there]
