"""How a process of the training environment is told its job and answers: two JSON files."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from schemas.errors import DealerIQError

__all__ = ["ChildFailedError", "answer", "read_answer", "text_settings"]

_TEXT: dict[str, Any] = {}


class ChildFailedError(DealerIQError):
    """A process of the training environment ended with an error of its own, told in the message."""

    remedy = "See its lines above."


def answer(arguments: Sequence[str], work: Callable[[dict[str, Any]], Any]) -> int:
    """Give the job of the first file to `work`, write what it returns to the second; return the exit code.

    The answer appears when it is whole: a process that was killed has none.
    """
    job_file, out = map(Path, arguments)
    job = json.loads(job_file.read_text("utf-8"))
    _TEXT.update(job.pop("text", {}))
    code = 0
    try:
        told = {"result": work(job)}
    except DealerIQError as error:
        told = {"error": {"message": str(error), "remedy": error.remedy, "exit_code": error.exit_code}}
        code = error.exit_code
    fresh = out.with_suffix(".next")
    fresh.write_text(json.dumps(told), "utf-8")
    fresh.replace(out)
    return code


def text_settings() -> dict[str, Any]:
    """Return the settings of the text encoder that came with the job (`text`); none: the defaults."""
    return dict(_TEXT)


def read_answer(out: Path, code: int | None) -> Any:
    """Return what a child answered. Raises ChildFailedError with its own words, remedy and exit code."""
    if not out.exists():
        raise ChildFailedError(
            f"the training process ended with {code} and left no answer",
            remedy="It was killed, or met a defect: see its lines above. Nothing changed; train again.",
        )
    told = json.loads(out.read_text("utf-8"))
    if "error" in told:
        error = ChildFailedError(told["error"]["message"], remedy=told["error"]["remedy"])
        error.exit_code = told["error"]["exit_code"]
        raise error
    return told["result"]
