"""A model by name or path to an encoder's folder. Runs in the environment of encoders, which has torch:

python -m models.export.encoders JOB.json OUT.json
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from models.training.child import answer
from schemas.errors import DealerIQError

__all__ = ["EncoderExportError", "export", "name_of"]


class EncoderExportError(DealerIQError):
    """The model cannot be read, or cannot be exported. Nothing was written."""

    remedy = "Give the folder of a sentence-transformers or transformers model, or its name on the hub."
    exit_code = 5


def export(job: dict[str, Any]) -> dict[str, Any]:
    """Export `source` to `folder`; return what its `encoder.json` says.

    Raises EncoderExportError, ParityError, EncoderError.
    """
    from models.export.image_encoder import export_image, export_pair
    from models.export.text_encoder import export_text

    source, folder = str(job["source"]), Path(job["folder"])
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        write = {"text": export_text, "image": export_image, "pair": export_pair}[_kind(source)]
        told = write(source, made)
        told = told.model_copy(update={"name": name_of(source), "source": source})
        return told.save(made, folder).model_dump()
    except (OSError, ValueError, ImportError) as error:
        first = str(error).strip().splitlines() or [type(error).__name__]
        raise EncoderExportError(f"{source} cannot be exported: {first[0]}") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _kind(source: str) -> str:
    """Whether a model is of texts, of images, or a pair of both in one space."""
    from models.export.image_encoder import CARRIED

    if source == CARRIED:
        return "image"
    if (Path(source) / "modules.json").exists():  # sentence-transformers writes it
        return "text"
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(source)
    if hasattr(config, "vision_config") and hasattr(config, "text_config"):
        if config.model_type != "clip":
            raise ValueError(
                f"of models of texts and images those of type clip are, and this is {config.model_type}"
            )
        return "pair"
    return "image" if hasattr(config, "num_channels") else "text"


def name_of(source: str) -> str:
    """Return the name of an encoder: the last part of a path or of a hub's name."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", source.rstrip("/").rpartition("/")[2]).strip("-._")
    return name[:100] or "encoder"


if __name__ == "__main__":
    sys.exit(answer(sys.argv[1:], export))
