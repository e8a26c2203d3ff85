"""Sentence-transformers models to ONNX: tokens in, a vector of length 1 out, whatever the pooling."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.encoding import EncoderFolder, TextPart, Vectors
from models.export.cosines import lowest_cosines
from models.settings import TextSettings
from models.text.onnx import OnnxTextEncoder

__all__ = ["PARITY_TEXTS", "export_text", "save_tokenizer", "write_onnx"]

PARITY_TEXTS = (
    "hi",
    "",
    "Where is my order? It should have come on Monday.",
    "The brake pads you sent do not fit my car, and nobody answers the telephone. " * 12,
    "größer — 価格はいくらですか 🚗",
    "SKU 4711/B: 2 x 500 ml, 12.50 EUR",
    "Thank you so much, that was quick!",
    "word " * 3_000,
    "BRAKE pads, front; REAR disc",
    "ø",
)
"""Short and long, cut and whole, of other alphabets: a batch of these is mostly padding."""
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def export_text(source: str, made: Path) -> EncoderFolder:
    """Write the model's ONNX file and tokenizer into the folder `made`; return what they are, parity included.

    A model that is no sentence-transformers one gets the mean over its tokens. Raises ParityError, and OSError
    or ValueError of transformers for what is no model.
    """
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(source, device="cpu", model_kwargs={"attn_implementation": "eager"})
    model.eval()
    tokenizer = model.tokenizer
    part = TextPart(
        max_tokens=_max_tokens(model),
        padding=tokenizer.pad_token_id or 0,
        lower=bool(getattr(model[0], "do_lower_case", False)),
        prefix=(model.prompts or {}).get(model.default_prompt_name or "", ""),
    )
    names = [each for each in _INPUTS if each in (*tokenizer.model_input_names, "attention_mask")]
    example = tokenizer(list(PARITY_TEXTS[:3]), padding=True, return_tensors="pt")
    write_onnx(_sentences(model), {name: example[name] for name in names}, "vector", made / part.model)
    save_tokenizer(tokenizer, made / part.tokenizer)
    dimension = _dimension(model)
    ours = OnnxTextEncoder(
        made / part.model,
        made / part.tokenizer,
        "export",
        TextSettings(max_tokens=8_192, provider="cpu"),
        part=part,
    )

    def theirs(texts: Sequence[str]) -> Vectors:
        cleaned = [" ".join(each.split()) for each in texts]
        found = model.encode(cleaned, batch_size=len(texts), convert_to_numpy=True, show_progress_bar=False)
        return np.asarray(found, np.float32)

    parity = lowest_cosines("texts", ours, theirs, PARITY_TEXTS)
    return EncoderFolder(name="export", dimension=dimension, text=part, parity=parity)


def save_tokenizer(tokenizer: Any, file: Path) -> None:
    """Write tokenizer.json without what it says of lengths, which is ours to decide. Raises ValueError."""
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(f"its tokenizer ({type(tokenizer).__name__}) has no tokenizer.json")
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    backend.save(str(file))


def write_onnx(module: Any, inputs: dict[str, Any], output: str, file: Path) -> None:
    """Export a module whose inputs have a batch (and, of two dimensions, tokens) of any length."""
    import torch

    axes = {
        name: {0: torch.export.Dim.DYNAMIC} | ({1: torch.export.Dim.DYNAMIC} if given.ndim == 2 else {})
        for name, given in inputs.items()
    }
    # One file of less than 2 GB as long as it fits: protobuf's limit.
    large = sum(each.numel() * each.element_size() for each in module.parameters()) > 1_900_000_000
    with torch.inference_mode():
        torch.onnx.export(
            module,
            (),
            str(file),
            kwargs=inputs,
            input_names=list(inputs),
            output_names=[output],
            dynamic_shapes=axes,
            dynamo=True,
            external_data=large,
            verbose=False,
        )


def _sentences(model: Any) -> Any:
    """The whole sequence of the model's modules as one, its result normalised."""
    import torch

    class Sentences(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any = None) -> Any:
            features = {"input_ids": input_ids, "attention_mask": attention_mask}
            if token_type_ids is not None:
                features["token_type_ids"] = token_type_ids
            for each in self.model:
                features = each(features)
            return torch.nn.functional.normalize(features["sentence_embedding"], dim=-1)

    return Sentences().eval()


def _max_tokens(model: Any) -> int:
    """What the model reads of a text; a tokenizer without a bound says a number beyond all models."""
    positions = getattr(getattr(model[0], "auto_model", None), "config", None)
    bounds = [model.max_seq_length, model.tokenizer.model_max_length]
    bounds.append(getattr(positions, "max_position_embeddings", None))
    return int(min(each for each in (*bounds, 8_192) if each))


def _dimension(model: Any) -> int:
    ask = getattr(model, "get_embedding_dimension", None) or model.get_sentence_embedding_dimension
    return int(ask())
