"""Text encoders: a text becomes a vector whose direction is its meaning."""

from collections.abc import Callable

from models.encoding import Encoder, EncoderError, EncoderUnavailableError
from models.settings import TextSettings
from models.text.onnx import OnnxTextEncoder, packaged_encoder

__all__ = [
    "Encoder",
    "EncoderError",
    "EncoderUnavailableError",
    "OnnxTextEncoder",
    "TextSettings",
    "packaged_encoder",
    "text_encoder",
]


def text_encoder(settings: TextSettings, tokens: Callable[[int], None] = lambda count: None) -> Encoder:
    """Return the encoder of the settings; `tokens` is told what a service that encodes counts.

    Raises EncoderError, EncoderUnavailableError.
    """
    if settings.endpoint is None:
        return packaged_encoder(settings)
    from models.text.endpoint import EndpointTextEncoder  # its HTTP client is 15 MB that few processes need

    return EndpointTextEncoder(settings, tokens=tokens)
