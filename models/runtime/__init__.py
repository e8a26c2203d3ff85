"""Models where they answer: an ONNX session that was checked and warmed, and the vectors it takes."""

from models.runtime.registered import folder_of, open_registered
from models.runtime.session import RuntimeSettings, Session

__all__ = ["RuntimeSettings", "Session", "folder_of", "open_registered"]
