"""A Triton Inference Server model repository of the registry's champions.

`<root>/<model>/config.pbtxt` and `<root>/<model>/<number>/model.onnx`, with `model.json` beside it. Triton's
versions are numbers: a version's is its place in the order of registration, from 1, so that it is the same for
whoever reads the log. The configuration serves the champion alone, because Triton answers who names no version
with the highest number, which after a rollback is not the champion.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from models.artifact import DESCRIPTION, MODEL, Description, load
from models.lifecycle import LifecycleError, ModelState
from models.runtime import folder_of
from models.runtime.numbers import number_of
from schemas.errors import DealerIQError

__all__ = ["TritonExport", "TritonExportError", "config_of", "prepare"]

CONFIG = "config.pbtxt"
_INPUT, _OUTPUT = "input", "output"
_QUEUE_US = 500


class TritonExportError(DealerIQError):
    """The repository cannot be written, or holds another file under the same number."""

    remedy = "Give a folder that can be written and that no other system's registry was exported to."
    exit_code = 5


@dataclass(frozen=True)
class TritonExport:
    """One model as it will be written: its champion under its number."""

    description: Description
    number: int
    source: Path
    config: str

    def files(self, root: Path) -> list[Path]:
        """What lies in the repository afterwards."""
        folder = root / self.description.name
        version = folder / str(self.number)
        return [folder / CONFIG, version / MODEL, version / DESCRIPTION]

    def write(self, root: Path) -> None:
        """Write the version, then the configuration that serves it; each appears whole. May repeat.

        Raises TritonExportError.
        """
        config, model, _ = self.files(root)
        try:
            if not model.exists():
                model.parent.parent.mkdir(parents=True, exist_ok=True)
                fresh = Path(tempfile.mkdtemp(prefix=".fresh-", dir=model.parent.parent))
                try:
                    for name in (MODEL, DESCRIPTION):
                        shutil.copyfile(self.source / name, fresh / name)
                    fresh.chmod(0o755)
                    fresh.rename(model.parent)
                finally:
                    shutil.rmtree(fresh, ignore_errors=True)
            told, _ = load(model.parent)
            if told.version != self.description.version:
                raise TritonExportError(
                    f"{model.parent} holds {told.version}, and {self.description.version} belongs there"
                )
            other = config.with_name(f".{CONFIG}-{os.getpid()}")
            other.write_text(self.config, "utf-8")
            other.replace(config)
        except OSError as error:
            raise TritonExportError(f"{model.parent} cannot be written: {error}") from error


def prepare(state: ModelState, most_rows: int) -> TritonExport:
    """Return a model's champion as it will be written. Raises LifecycleError where there is none, ArtifactError
    where its folder is damaged.
    """
    if state.champion is None:
        raise LifecycleError(f"{state.name} has no champion to export")
    source = folder_of(state.version(state.champion).artifact)
    description, _ = load(source)
    number = number_of(state, state.champion)
    return TritonExport(description, number, source, config_of(description, number, most_rows))


def config_of(description: Description, number: int, most_rows: int) -> str:
    """Return the text of config.pbtxt: requests wait half a millisecond for others, up to `most_rows`."""
    told = {
        "dealeriq_version": description.version,
        "sha256": description.sha256,
        "run_id": description.run_id,
        "columns": ",".join(each.name for each in description.inputs),
        "outputs": ",".join(description.outputs),
        "score": description.score,
    }
    parameters = "\n".join(
        f"parameters {{ key: {_quoted(key)} value {{ string_value: {_quoted(value)} }} }}"
        for key, value in told.items()
        if value
    )
    return f"""# {description.name} {description.version}; written by `dealeriq models export triton`.
name: {_quoted(description.name)}
backend: "onnxruntime"
platform: "onnxruntime_onnx"
max_batch_size: {most_rows}
input [ {{ name: "{_INPUT}" data_type: TYPE_FP32 dims: [ {len(description.inputs)} ] }} ]
output [ {{ name: "{_OUTPUT}" data_type: TYPE_FP32 dims: [ {len(description.outputs)} ] }} ]
version_policy {{ specific {{ versions: [ {number} ] }} }}
dynamic_batching {{ max_queue_delay_microseconds: {_QUEUE_US} }}
{parameters}
"""


def _quoted(text: str) -> str:
    """A string as protobuf's text format has it; JSON's escapes are among its own."""
    return json.dumps(text)
