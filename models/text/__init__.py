"""Text encoders: a text becomes a vector whose direction is its meaning."""

from models.text.encoder import Encoder, EncoderError
from models.text.onnx import OnnxTextEncoder, packaged_encoder
from models.text.settings import TextSettings

__all__ = ["Encoder", "EncoderError", "OnnxTextEncoder", "TextSettings", "packaged_encoder"]
