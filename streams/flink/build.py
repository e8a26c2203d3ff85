"""Java sources to a jar, once for each state of the sources.

The Java runtime that a machine gets has no compiler, so the Eclipse compiler (one jar from Maven) does it: 2 s.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

from streams.flink.errors import JobBuildError

__all__ = ["SOURCES", "job_jar", "source_hash"]

SOURCES = Path(__file__).parent / "java"
_RELEASE = "17"  # what the official Flink images run
_EPOCH = (1980, 1, 1, 0, 0, 0)


def source_hash() -> str:
    """Return 16 hex digits that change with any source file or the language level."""
    digest = hashlib.sha256(_RELEASE.encode())
    for source in _sources():
        digest.update(source.relative_to(SOURCES).as_posix().encode() + b"\0" + source.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def job_jar(*, java: str | Path, compiler: Path, classpath: Iterable[Path], cache: Path) -> Path:
    """Return the jar of the job, compiled if `cache` does not hold it yet.

    `java` is a Java runtime's command, `compiler` the ecj jar, `classpath` Flink's jars with the connectors.
    Raises JobBuildError with the compiler's words.
    """
    jar = cache / f"dealeriq-flink-{source_hash()}.jar"
    if jar.exists() and zipfile.is_zipfile(jar):
        return jar
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        classes = Path(scratch) / "classes"
        _compile(java, compiler, classpath, classes)
        fresh = Path(scratch) / jar.name
        with zipfile.ZipFile(fresh, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(classes.rglob("*.class")):
                entry = zipfile.ZipInfo(file.relative_to(classes).as_posix(), _EPOCH)
                archive.writestr(entry, file.read_bytes(), zipfile.ZIP_DEFLATED)
        fresh.replace(jar)
    return jar


def _sources() -> list[Path]:
    return sorted(SOURCES.rglob("*.java"))


def _compile(java: str | Path, compiler: Path, classpath: Iterable[Path], classes: Path) -> None:
    command = [str(java), "-Xmx256m", "-jar", str(compiler), f"-{_RELEASE}", "-nowarn", "-encoding", "UTF-8"]
    command += [
        "-proc:none",
        "-cp",
        os.pathsep.join(map(str, classpath)),
        "-d",
        str(classes),
        *map(str, _sources()),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    except (OSError, subprocess.SubprocessError) as failure:
        raise JobBuildError(f"the compiler for the Flink job did not run: {failure}") from failure
    if done.returncode != 0:
        raise JobBuildError(f"the Flink job does not compile:\n{(done.stderr or done.stdout).strip()[:4000]}")
