"""Files of pictures, good and bad: what is read is computed again apart, what is refused says why."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from models.encoding import Picture
from models.image import ImageRefusedError, read_picture
from models.image.reading import pixels

PART = Picture(width=8, height=8, mean=(0.5, 0.5, 0.5), std=(0.25, 0.5, 1.0))
RNG = np.random.default_rng(2)


def written(image: Image.Image, kind: str, **more) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **more)
    return out.getvalue()


def noise(width: int = 40, height: int = 30, mode: str = "RGB") -> Image.Image:
    return Image.fromarray(RNG.integers(0, 256, (height, width, 3), np.uint8)).convert(mode)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width: int, height: int) -> bytes:
    """A few hundred bytes that say they are a picture of that size."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 10_000)) + chunk(b"IEND", b"")


def text_bomb() -> bytes:
    """A comment that is small as it is stored and 200 MB when it is unpacked."""
    whole = written(noise(), "PNG")
    packed = zlib.compress(b"a" * 200_000_000)
    return whole[:33] + chunk(b"zTXt", b"Comment\0\0" + packed) + whole[33:]


FRAMES = [noise(), noise(), noise()]
GOOD = written(noise(), "JPEG")
REFUSED = {
    "empty": (b"", "is empty"),
    "text": (b"<html>not found</html>", "is none of JPEG, PNG"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is none of"),
    "pdf": (b"%PDF-1.7\n%...", "is none of"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is none of"),
    "tiff": (written(noise(), "TIFF"), "is none of"),
    "cut jpeg": (GOOD[: len(GOOD) // 2], "JPEG image is damaged"),
    "cut png": (written(noise(), "PNG")[:-600], "PNG image is damaged"),
    "cut webp": (written(noise(), "WEBP")[:200], "damaged"),
    "head alone": (written(noise(), "PNG")[:20], "damaged|is none of"),
    "bomb": (bomb(60_000, 60_000), "pixels"),
    "beyond most": (bomb(4_000, 4_000), "4000 × 4000 pixels; at most 9,000,000"),
    "too few bytes": (bomb(2_000, 2_000), "damaged"),
    "text bomb": (text_bomb(), "damaged"),
    "gif": (written(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:]), "moves"),
    "apng": (written(FRAMES[0], "PNG", save_all=True, append_images=FRAMES[1:]), "moves"),
    "webp": (written(FRAMES[0], "WEBP", save_all=True, append_images=FRAMES[1:]), "moves"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_still_picture_is_one_sentence(name):
    content, said = REFUSED[name]
    with pytest.raises(ImageRefusedError, match=said) as failure:
        read_picture(content, 9_000_000)
    assert "\n" not in str(failure.value)


def test_no_byte_of_a_file_that_is_wrong_ends_in_another_error():
    for whole in (GOOD, written(noise(), "PNG"), written(noise(mode="P"), "GIF"), written(noise(), "WEBP")):
        for _ in range(150):
            damaged = bytearray(whole)
            for at in RNG.integers(0, len(damaged), 4):
                damaged[at] = RNG.integers(0, 256)
            try:
                read_picture(bytes(damaged), 9_000_000)
            except ImageRefusedError:
                continue


def test_colours_come_out_as_they_are_seen():
    clear = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    assert read_picture(written(clear, "PNG"), 100).getpixel((1, 1)) == (255, 255, 255)
    deep = Image.fromarray(np.full((4, 4), 257 * 100, np.uint16))
    assert read_picture(written(deep, "PNG"), 100).getpixel((1, 1)) == (100, 100, 100)
    assert read_picture(written(noise(mode="CMYK"), "JPEG"), 9_000).mode == "RGB"
    turned = Image.new("RGB", (6, 3), (9, 9, 9))
    exif = Image.Exif()
    exif[0x0112] = 6
    assert read_picture(written(turned, "JPEG", exif=exif.tobytes()), 100).size == (3, 6)


def test_pixels_are_the_picture_scaled():
    picture = noise(8, 8)
    wanted = (np.asarray(picture) / 255.0 - 0.5) / [0.25, 0.5, 1.0]
    assert np.allclose(pixels(picture, PART), wanted.transpose(2, 0, 1), atol=1e-6)
    cut = PART.model_copy(update={"shortest": 16})
    middle = noise(32, 16)
    wanted = (np.asarray(middle)[4:12, 12:20] / 255.0 - 0.5) / [0.25, 0.5, 1.0]
    assert np.allclose(pixels(middle, cut), wanted.transpose(2, 0, 1), atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (30_000, 1), (1, 30_000), (9_000, 10), (13, 7)])
def test_a_picture_of_any_shape_has_the_models_size(size):
    flat = Image.new("RGB", size, (255, 0, 0))
    found = pixels(flat, PART.model_copy(update={"shortest": 12}))
    assert found.shape == (3, 8, 8)
    assert np.allclose(found[0], 2.0)
