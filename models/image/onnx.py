"""An image encoder in ONNX: pixels of one size in, a vector of length 1 out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from models.encoding import EncoderError, EncoderFolder, Vectors
from models.encoding.session import open_session
from models.image.encoder import ImageEncoder, Pixels
from models.image.reading import pixels, read_picture
from models.settings import ImageSettings

__all__ = ["OnnxImageEncoder", "image_encoder"]

_REMEDY = "Name a folder that `dealeriq encoders export` wrote of a model of images, in image.model."


class OnnxImageEncoder(ImageEncoder):
    """The image part of an exported folder. Raises EncoderError."""

    def __init__(
        self, folder: Path, settings: ImageSettings | None = None, told: EncoderFolder | None = None
    ) -> None:
        settings = settings or ImageSettings()
        told = told or EncoderFolder.read(folder)
        if told.image is None:
            raise EncoderError(f"{folder} encodes no images", remedy=_REMEDY)
        self._part, self._settings = told.image, settings
        self._session = open_session(folder / told.image.model, settings.threads, settings.provider)
        self._input = self._session.get_inputs()[0].name
        self._output = self._session.get_outputs()[0].name
        self.name, self.version, self.dimension = told.name, told.version, told.dimension
        grey = np.zeros((3, told.image.height, told.image.width), np.float32)
        found = self._run([grey]).shape[1]
        if found != told.dimension:
            raise EncoderError(f"{folder} gives {found} numbers, and its description says {told.dimension}")

    def read(self, content: bytes) -> Pixels:
        """Return a file's pixels. Raises ImageRefusedError."""
        return pixels(read_picture(content, self._settings.most_pixels), self._part)

    def encode(self, batch: Sequence[Pixels]) -> Vectors:
        """Return float32 [len(batch), dimension], rows of length 1, in the batch's order."""
        size = self._settings.batch_size
        parts = [self._run(batch[start : start + size]) for start in range(0, len(batch), size)]
        return np.concatenate(parts) if parts else np.empty((0, self.dimension), np.float32)

    def _run(self, batch: Sequence[Pixels]) -> Vectors:
        (found,) = self._session.run([self._output], {self._input: np.stack(batch)})
        lengths = np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        vectors: Vectors = (found / lengths).astype(np.float32)
        return vectors


def image_encoder(settings: ImageSettings) -> OnnxImageEncoder:
    """Return the image encoder of the settings. Raises EncoderError."""
    if settings.model is None:
        raise EncoderError("image.model is unset: no image encoder is carried", remedy=_REMEDY)
    return OnnxImageEncoder(settings.model, settings)
