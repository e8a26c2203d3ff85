"""What a killed process had started ends with it: nothing works on for somebody who is gone."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import until


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_training_ends_with_the_process_that_asked_for_it(tmp_path: Path, how: signal.Signals) -> None:
    told, python = tmp_path / "pid", tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho $$ > {told}.next && mv {told}.next {told}\nexec sleep 600\n")
    python.chmod(0o755)
    asked = f"from dealeriq.training import child\nchild('training.run', {{}}, python={str(python)!r})\n"
    with subprocess.Popen([sys.executable, "-c", asked]) as parent:
        until(told.exists)
        parent.send_signal(how)
    until(lambda: not _lives(int(told.read_text())))


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
