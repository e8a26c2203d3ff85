"""Models where they answer: an ONNX session that was checked and warmed, and the vectors it takes."""

from models.runtime.session import RuntimeSettings, Session

__all__ = ["RuntimeSettings", "Session"]
