"""The `run` script on machines that lack something: one clear sentence each."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NEEDED = ("sh", "dirname", "cksum", "tr", "cat", "grep", "tail", "mkdir", "rm", "sleep", "printf", "wc", "env")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder with the project's set-up files, an empty home, and a PATH of the barest tools."""
    project = tmp_path / "project"
    for folder in ("dealeriq", "schemas", "requirements", "infra/jars"):
        shutil.copytree(ROOT / folder, project / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "run", project / "run")
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in NEEDED:
        found = shutil.which(name)
        if found is not None:
            (tools / name).symlink_to(found)
    (tmp_path / "home").mkdir()
    return tmp_path


def add(machine: Path, name: str, script: str) -> None:
    file = machine / "bin" / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


def run(machine: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "DEALERIQ_"))}
    return subprocess.run(
        ["sh", str(machine / "project" / "run"), "config"],
        env={**clean, "PATH": str(machine / "bin"), "HOME": str(machine / "home"), **environment},
        capture_output=True,
        text=True,
        timeout=240,
        cwd=machine,
    )


def test_no_python(machine: Path) -> None:
    done = run(machine)
    assert done.returncode == 1
    assert "Python 3.11 or 3.12 with venv is needed; no python3 was found." in done.stderr


@pytest.mark.parametrize("version", ["3.13", "3.9"])
def test_a_python_of_the_wrong_age_is_named(machine: Path, version: str) -> None:
    add(machine, "python3", f"echo {version}")
    done = run(machine)
    assert done.returncode == 1
    assert f"Python 3.11 or 3.12 with venv is needed; python3 is {version};" in done.stderr


def test_a_python_without_venv_is_named(machine: Path) -> None:
    add(machine, "python3", 'case "$*" in *venv*) exit 1 ;; *) echo 3.11 ;; esac')
    done = run(machine)
    assert done.returncode == 1
    assert "python3 is 3.11 but has no venv module" in done.stderr


@pytest.mark.parametrize(
    ("told", "kept"), [("", ":"), ("1", "home/.cache/dealeriq/bytecode:"), ("1/elsewhere", "elsewhere:")]
)
def test_compiled_modules_are_kept_though_not_beside_the_sources(machine: Path, told: str, kept: str) -> None:
    seen = machine / "seen"
    add(machine, "python3", f'echo "$PYTHONPYCACHEPREFIX:$PYTHONDONTWRITEBYTECODE" >{seen}; echo 3.9')
    not_beside, _, elsewhere = told.partition("/")
    run(machine, PYTHONDONTWRITEBYTECODE=not_beside, PYTHONPYCACHEPREFIX=elsewhere)
    assert seen.read_text().strip().removeprefix(f"{machine}/") == kept


def test_a_shim_that_does_not_run_is_passed_over(machine: Path) -> None:
    add(machine, "python3", "echo 3.13")
    add(machine, "python3.12", "exit 127")
    done = run(machine)
    assert "python3.12" not in done.stderr.replace("3.11 or 3.12", "")


@pytest.fixture
def python(machine: Path) -> None:
    (machine / "bin" / "python3").symlink_to(Path(os.path.realpath(ROOT / ".venv/bin/python")))


@pytest.mark.usefixtures("python")
def test_no_network(machine: Path) -> None:
    done = run(
        machine,
        PIP_INDEX_URL="http://127.0.0.1:9/simple",
        PIP_RETRIES="0",
        PIP_CONFIG_FILE=os.devnull,
        PIP_FIND_LINKS="",
    )
    assert done.returncode == 1
    assert "uv could not be fetched: the package index cannot be reached." in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("python")
def test_a_home_that_cannot_be_written(machine: Path) -> None:
    (machine / "home" / ".cache").write_text("a file")
    done = run(machine)
    assert done.returncode == 1
    assert ".cache/dealeriq cannot be written" in done.stderr


def test_the_script_needs_only_a_posix_shell() -> None:
    # dash takes nothing that POSIX has not; elsewhere the machine's own sh is the one that users have.
    subprocess.run([shutil.which("dash") or "sh", "-n", str(ROOT / "run")], check=True)
