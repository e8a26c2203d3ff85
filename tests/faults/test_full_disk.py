"""A disk that fills up while services write to it: told in a sentence, waited for, and nothing lost."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("full_disk.py")
# A mount namespace of its own: the small disk goes with the process, also where that is killed.
OWN_MOUNTS = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]


@pytest.fixture
def small_disk(tmp_path: Path) -> list[str]:
    """What runs a command with a disk of 96 MiB on `tmp_path`."""
    mounting = f'mount -t tmpfs -o size=96m none "{tmp_path}" && exec "$@"'
    command = [*OWN_MOUNTS, "sh", "-c", mounting, "sh"]
    if shutil.which("unshare") is None or subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip(
            "a small disk needs a mount namespace (root, or user namespaces), which this machine refuses"
        )
    return command


@pytest.mark.services
@pytest.mark.fault
@pytest.mark.timeout(900)
def test_a_full_disk_is_told_waited_for_and_loses_nothing(small_disk: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [*small_disk, sys.executable, str(SCRIPT), str(tmp_path)], capture_output=True, text=True, timeout=850
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    seen = json.loads(done.stdout)
    assert "the disk of" in seen["supervisor"]
    assert "Make room" in seen["supervisor"]
    assert seen["redis"].startswith("Redis takes no writes: ")
    assert "Give it room" in seen["redis"]
    code, said, told = seen["new_run"]
    assert (code, said) == (4, "")
    assert "disk" in told
    assert "full" in told
    assert told.count("\n") == 1, told
    assert (seen["unsent"], seen["complete"], seen["kept"]) == (0, True, "before")
