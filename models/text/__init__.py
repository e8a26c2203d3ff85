"""Text encoders: a text becomes a vector whose direction is its meaning."""

from models.settings import TextSettings
from models.text.encoder import Encoder, EncoderError
from models.text.onnx import OnnxTextEncoder, packaged_encoder

__all__ = ["Encoder", "EncoderError", "OnnxTextEncoder", "TextSettings", "packaged_encoder"]
