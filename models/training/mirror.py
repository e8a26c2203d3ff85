"""MLflow's aliases and stages set to what the log says: `python -m models.training.mirror JOB OUT`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from connectors.mlflow import Mlflow
from connectors.settings import MlflowSettings
from models.training.child import answer

__all__ = ["main", "mirror"]


def mirror(job: dict[str, Any]) -> dict[str, list[str]]:
    """Mirror each model of `states` (`ModelState.as_dict`); return what was changed. Raises
    MlflowUnavailableError.
    """
    mlflow = Mlflow(MlflowSettings(**job["mlflow"]), Path(job["data_dir"]))
    return {
        state["name"]: mlflow.mirror(
            state["name"],
            {"champion": state["champion"], "challenger": state["challenger"]},
            {name: each["stage"] for name, each in state["versions"].items()},
        )
        for state in job["states"]
        if state["versions"]
    }


def main(arguments: list[str] | None = None) -> int:
    """Run the job of a file and write what was changed to another."""
    return answer(sys.argv[1:] if arguments is None else arguments, mirror)


if __name__ == "__main__":
    sys.exit(main())
