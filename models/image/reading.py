"""A picture's file to its pixels: nothing of a file is believed before it is looked at.

Pillow decodes. Its decoders for other things than pictures (PostScript runs a program) are never asked; a size
is judged before a pixel is made, and what a damaged file makes Pillow raise becomes one sentence.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from typing import TYPE_CHECKING

import numpy as np

from models.encoding import Picture, Vectors
from schemas.errors import ContractError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["FORMATS", "ImageRefusedError", "pixels", "read_picture"]

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
_BROKEN = (
    OSError,
    ValueError,
    SyntaxError,
    IndexError,
    KeyError,
    TypeError,
    EOFError,
    struct.error,
    zlib.error,
)


class ImageRefusedError(ContractError):
    """A file is no picture, is damaged, moves, or is larger than is read."""

    remedy = "Give the product a still JPEG, PNG, WebP, GIF or BMP; image.most_pixels bounds its size."


def read_picture(content: bytes, most_pixels: int) -> Image:
    """Return a file's picture in RGB, upright, on white where it is see-through. Raises ImageRefusedError."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    if not content:
        raise ImageRefusedError("the image is empty")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of large files; ours are judged below
        try:
            opened = Image.open(io.BytesIO(content), formats=FORMATS)
        except UnidentifiedImageError as error:
            raise ImageRefusedError(
                f"the image is none of {', '.join(FORMATS)}: it begins with {content[:8]!r}"
            ) from error
        except Image.DecompressionBombError as error:
            raise ImageRefusedError(
                f"the image has more than the {most_pixels:,} pixels that are read"
            ) from error
        except _BROKEN as error:
            raise ImageRefusedError(f"the image is damaged: {error}") from error
        with opened:
            width, height = opened.size
            if width * height > most_pixels:
                raise ImageRefusedError(
                    f"the image has {width} × {height} pixels; at most {most_pixels:,} are read"
                )
            try:
                frames = getattr(opened, "n_frames", 1)
                if frames > 1:
                    raise ImageRefusedError(f"the image moves ({frames} frames); a still one is needed")
                opened.load()
                return _rgb(ImageOps.exif_transpose(opened))
            except _BROKEN as error:
                raise ImageRefusedError(f"the {opened.format} image is damaged: {error}") from error


def _rgb(given: Image) -> Image:
    from PIL import Image

    if given.mode.startswith("I"):  # 16 bits of grey
        grey = np.asarray(given).astype(np.float64) / 257.0
        given = Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8))
    if given.mode in ("RGBA", "LA", "PA") or "transparency" in given.info:
        over = given.convert("RGBA")
        under = Image.new("RGBA", over.size, (255, 255, 255, 255))
        return Image.alpha_composite(under, over).convert("RGB")
    return given.convert("RGB")


def pixels(image: Image, part: Picture) -> Vectors:
    """Return what the model takes of a picture: resized, its middle cut out, its colours shifted and scaled."""
    width, height = image.size
    if part.shortest is None:
        image = image.resize((part.width, part.height), part.resample)
    else:
        scale = part.shortest / min(width, height)
        # The longer side is cut short, as the processors of transformers do.
        longer = int(part.shortest * max(width, height) / min(width, height))
        size = (part.shortest, longer) if width <= height else (longer, part.shortest)
        # A picture as narrow as a line is cut before it is made longer than the model will ever see.
        if longer > 16 * max(part.width, part.height):
            image, size = _middle(image, part, scale)
        image = image.resize(size, part.resample)
    left, top = (image.width - part.width) // 2, (image.height - part.height) // 2
    cut = image.crop((left, top, left + part.width, top + part.height))
    colours = np.asarray(cut, np.float32) / 255.0
    shifted = (colours - np.array(part.mean, np.float32)) / np.array(part.std, np.float32)
    return np.ascontiguousarray(shifted.transpose(2, 0, 1), dtype=np.float32)


def _middle(image: Image, part: Picture, scale: float) -> tuple[Image, tuple[int, int]]:
    """The part around the middle that can reach the model, and its size after resizing."""
    reach = [2 * int(side / scale + 1) for side in (part.width, part.height)]
    width, height = min(image.width, reach[0]), min(image.height, reach[1])
    left, top = (image.width - width) // 2, (image.height - height) // 2
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return image.crop((left, top, left + width, top + height)), size
