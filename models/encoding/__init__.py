"""One contract for every kind of encoder, and the folder that an exported one stands in."""

from models.encoding.contract import Encoder, EncoderError, EncoderUnavailableError, Vectors
from models.encoding.folder import DESCRIPTION, EncoderFolder, Picture, TextPart

__all__ = [
    "DESCRIPTION",
    "Encoder",
    "EncoderError",
    "EncoderFolder",
    "EncoderUnavailableError",
    "Picture",
    "TextPart",
    "Vectors",
]
