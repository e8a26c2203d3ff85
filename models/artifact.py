"""The folder that is served: `model.onnx` and `model.json`. Whoever loads it needs no training library.

`model.json` says everything that scoring and explaining need, and which run made the file. A folder is written
whole under another name and renamed, so that one that is there is complete; it is checked again when it is
loaded.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from models.inputs import Feature, Input, input_of
from models.rules import InsightRule
from schemas.errors import DealerIQError

__all__ = ["DESCRIPTION", "FORMAT", "MODEL", "ArtifactError", "Description", "load", "save", "version_of"]

FORMAT = 1
MODEL, DESCRIPTION = "model.onnx", "model.json"


class ArtifactError(DealerIQError):
    """A model's folder is missing, cut short, or not what its description says. It is not served."""

    remedy = "Serve an earlier version (`dealeriq models rollback NAME`), or train again."
    exit_code = 5


@dataclass(frozen=True)
class Description:
    """What `model.json` holds.

    `inputs` are in the order of the vector; `reference` is a usual value of each (NaN-free), which reasons are
    told against; `score` names the output that is the score. `origin` is the lake that it was trained on,
    `as_of_ms` the event time until which; `run_id` is its run in MLflow.
    """

    name: str
    version: str
    spec_version: int
    entity: tuple[str, ...]
    subject_type: str
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    score: str
    sha256: str
    as_of_ms: int
    run_id: str = ""
    reference: tuple[float, ...] = ()
    rules: tuple[InsightRule, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    origin: Mapping[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def features(self) -> list[str]:
        """The features of the plan that the vector needs, `view.feature`, in order."""
        return [f"{each.view}.{each.feature}" for each in self.inputs if isinstance(each, Feature)]

    @property
    def views(self) -> dict[str, list[str]]:
        """The same by view."""
        found: dict[str, list[str]] = {}
        for each in self.inputs:
            if isinstance(each, Feature):
                found.setdefault(each.view, []).append(each.feature)
        return found

    def to_json(self) -> str:
        """Return the text of model.json."""
        plain = {each.name: getattr(self, each.name) for each in fields(self)}
        plain["inputs"] = [each.to_dict() for each in self.inputs]
        plain["rules"] = [each.to_dict() for each in self.rules]
        return json.dumps(plain, indent=1, sort_keys=True, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Description:
        """Read the text of model.json. Raises ArtifactError, InputsError, RuleError."""
        try:
            given = json.loads(text)
            if given["format"] != FORMAT:
                raise ArtifactError(
                    f"{DESCRIPTION} has format {given['format']}, and this release reads {FORMAT}",
                    remedy="Update DealerIQ where it is served, or train the model again.",
                )
            given["inputs"] = tuple(input_of(each) for each in given["inputs"])
            given["rules"] = tuple(InsightRule.of(each) for each in given["rules"])
            for name in ("entity", "outputs", "reference"):
                given[name] = tuple(given[name])
            return cls(**given)
        except (ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{DESCRIPTION} cannot be read: {error!r}") from error


def version_of(as_of_ms: int, onnx: bytes, inputs: Sequence[Input], spec_version: int) -> str:
    """Return a version's name: the day it was trained as of, and a hash of what decides its answers.

    The same data, code and seed give the same name, so a training that is repeated after a crash is the same
    version.
    """
    import time

    told = json.dumps([spec_version, [each.to_dict() for each in inputs]], sort_keys=True)
    digest = hashlib.sha256(onnx + told.encode()).hexdigest()
    return f"{time.strftime('%Y%m%d', time.gmtime(as_of_ms / 1000))}-{digest[:10]}"


def save(folder: Path, description: Description, onnx: bytes) -> Path:
    """Write the folder, whole or not at all; one that is there already is left as it is. Return it."""
    if (folder / DESCRIPTION).exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for name, content in ((MODEL, onnx), (DESCRIPTION, description.to_json().encode())):
            with (fresh / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        fresh.chmod(0o755)
        try:
            fresh.rename(folder)
        except OSError:
            if not (folder / DESCRIPTION).exists():  # another process wrote the same version meanwhile
                raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder


def load(folder: Path) -> tuple[Description, bytes]:
    """Return what a folder describes and the ONNX file's bytes, checked against each other.

    Raises ArtifactError for a missing, cut or foreign file.
    """
    try:
        text, onnx = (folder / DESCRIPTION).read_text("utf-8"), (folder / MODEL).read_bytes()
    except (OSError, UnicodeDecodeError) as error:
        words = getattr(error, "strerror", None) or "it is not text"
        raise ArtifactError(f"the model in {folder} cannot be read: {words}") from error
    description = Description.from_json(text)
    digest = hashlib.sha256(onnx).hexdigest()
    if digest != description.sha256:
        raise ArtifactError(
            f"{folder / MODEL} ({len(onnx):,} bytes, sha256 {digest[:12]}) is not the file that {DESCRIPTION} "
            f"describes (sha256 {description.sha256[:12]}): cut short, or of another model"
        )
    return description, onnx
