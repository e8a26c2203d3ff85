"""Image encoders: a picture becomes a vector; pictures that look alike are near."""

from models.image.encoder import ImageEncoder, Pixels
from models.image.onnx import OnnxImageEncoder, image_encoder
from models.image.reading import ImageRefusedError, read_picture

__all__ = [
    "ImageEncoder",
    "ImageRefusedError",
    "OnnxImageEncoder",
    "Pixels",
    "image_encoder",
    "read_picture",
]
