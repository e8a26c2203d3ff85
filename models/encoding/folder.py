"""The folder of an exported encoder: ONNX files, a tokenizer, and `encoder.json`, which says what they are.

Pooling and normalisation are in the ONNX files; what comes before them (tokens, the size and colours of a
picture) is in `encoder.json`. A folder is written whole under another name and renamed, and its files are held
against their hashes when it is opened. A model of texts and pictures in one space (CLIP) has both parts, and
one identity.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.encoding.contract import EncoderError

__all__ = ["DESCRIPTION", "EncoderFolder", "Picture", "TextPart"]

FORMAT = 1
DESCRIPTION = "encoder.json"
_File = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TextPart(_Part):
    """How texts are encoded. `lower`: the text is put into lower case; `prefix`: what stands before each."""

    model: _File = "text.onnx"
    tokenizer: _File = "tokenizer.json"
    max_tokens: int = Field(ge=1)
    padding: int = Field(0, ge=0)
    lower: bool = False
    prefix: str = ""


class Picture(_Part):
    """How pictures are encoded: the shorter side is resized to `shortest` (or both to `width` × `height` where
    there is none), the middle is cut out, and the colours, from 0 to 1, lose `mean` and are divided by `std`.
    """

    model: _File = "image.onnx"
    width: int = Field(ge=1, le=4_096)
    height: int = Field(ge=1, le=4_096)
    shortest: int | None = Field(None, ge=1, le=4_096)
    resample: int = Field(3, ge=0, le=5, description="Pillow's filter: 2 bilinear, 3 bicubic")
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class EncoderFolder(_Part):
    """What `encoder.json` holds.

    name: of the model; `version` is a hash of all that decides a vector. source: the name or path that it was
    exported from. files: name → sha256. parity: the lowest cosines to the source model, by what was compared.
    """

    format: int = FORMAT
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")
    version: str = ""
    source: str = ""
    dimension: int = Field(ge=1, le=65_536)
    text: TextPart | None = None
    image: Picture | None = None
    files: Mapping[_File, str] = Field(default_factory=dict)
    parity: Mapping[str, float] = Field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> EncoderFolder:
        """Return what a folder describes, its files checked. Raises EncoderError."""
        file = folder / DESCRIPTION
        try:
            given: Any = json.loads(file.read_bytes())
        except OSError as error:
            raise EncoderError(f"{file} cannot be read: {error.strerror}", remedy=_REMEDY) from error
        except ValueError as error:
            raise EncoderError(f"{file} is no JSON: {error}", remedy=_REMEDY) from error
        written = given.get("format") if isinstance(given, dict) else None
        if written != FORMAT:
            raise EncoderError(
                f"{file} has format {written}, and this release reads {FORMAT}",
                remedy=_REMEDY,
            )
        try:
            found = cls.model_validate(given)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise EncoderError(f"{file}: {where}: {first['msg']}", remedy=_REMEDY) from error
        for name, wanted in found.files.items():
            came = _digest(folder / name)
            if came != wanted:
                raise EncoderError(
                    f"{folder / name} (sha256 {came[:12]}) is not the file that {DESCRIPTION} describes "
                    f"(sha256 {wanted[:12]}): cut short, or of another model",
                    remedy=_REMEDY,
                )
        if found.version != found._version():
            raise EncoderError(f"{file} was changed: its version is of another description", remedy=_REMEDY)
        return found

    def save(self, made: Path, folder: Path) -> EncoderFolder:
        """Describe the files in the folder `made`, and let it take its place as `folder`; return what it says.

        A folder with the same version is left as it is. Raises EncoderError where another stands there.
        """
        names = sorted(each.name for each in made.iterdir())
        found = self.model_copy(update={"files": {name: _digest(made / name) for name in names}})
        found = found.model_copy(update={"version": found._version()})
        if folder.exists():
            if (folder / DESCRIPTION).exists() and EncoderFolder.read(folder).version == found.version:
                shutil.rmtree(made)
                return found
            raise EncoderError(
                f"{folder} is there already, and holds something else",
                remedy="Name another folder, or remove that one.",
            )
        (made / DESCRIPTION).write_text(found.model_dump_json(indent=1) + "\n", "utf-8")
        made.chmod(0o755)
        made.rename(folder)
        return found

    def _version(self) -> str:
        """Of the files and of what comes before them; not of where the model came from."""
        parts = [each and each.model_dump() for each in (self.text, self.image)]
        return hashlib.sha256(json.dumps([dict(self.files), parts], sort_keys=True).encode()).hexdigest()[:12]


_REMEDY = "Export the model again (`dealeriq encoders export`)."


def _digest(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise EncoderError(f"{file} cannot be read: {error.strerror}", remedy=_REMEDY) from error
