"""Jar sets: fetched by their lock files, checked by sha-256, kept in the user's cache."""

import hashlib
import importlib.util
import os
import re
import shutil
import tarfile
import tempfile
import threading
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from dealeriq.runtime.errors import JarUnavailableError

__all__ = ["SETS", "Artifact", "cache_dir", "ensure", "locked"]

SETS = ("kafka", "registry", "flink", "tools")
_LOCKS = Path(__file__).parents[2] / "infra" / "jars"
_ATTEMPTS = 4


@dataclass(frozen=True)
class Artifact:
    """One locked file of a Maven repository."""

    group: str
    name: str
    version: str
    packaging: str
    classifier: str
    sha256: str

    @property
    def file_name(self) -> str:
        """The file's name, as in the repository."""
        classifier = f"-{self.classifier}" if self.classifier else ""
        return f"{self.name}-{self.version}{classifier}.{self.packaging}"

    @property
    def path(self) -> str:
        """The file's path inside a Maven repository."""
        return f"{self.group.replace('.', '/')}/{self.name}/{self.version}/{self.file_name}"


def cache_dir() -> Path:
    """Where jars are kept between runs: `DEALERIQ_CACHE_DIR`, else `dealeriq` in the user's cache folder."""
    chosen = os.environ.get("DEALERIQ_CACHE_DIR")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dealeriq"


def locked(jar_set: str) -> list[Artifact]:
    """The artifacts that the lock file of a set names.

    Raises:
        JarUnavailableError: the lock file is missing or says no sha-256 for a file.
    """
    lock = _LOCKS / jar_set / "jgo.lock.toml"
    try:
        entries = tomllib.loads(lock.read_text())["dependencies"]
        return [
            Artifact(
                e["groupId"],
                e["artifactId"],
                e["version"],
                e["packaging"],
                e.get("classifier", ""),
                e["sha256"],
            )
            for e in entries
        ]
    except (OSError, KeyError, tomllib.TOMLDecodeError) as failure:
        raise JarUnavailableError(f"the jar lock {lock} cannot be read: {failure!r}") from failure


def ensure(jar_set: str, progress: Callable[[str], None] = lambda line: None) -> list[Path]:
    """The files of a set, each checked against its lock; what is missing or damaged is fetched.

    A `tar.gz` is unpacked and stands in the result as its folder.

    Raises:
        JarUnavailableError: a file cannot be had, or what came is not what was locked.
    """
    artifacts = locked(jar_set)
    folder = cache_dir() / "jars"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as failure:
        raise JarUnavailableError(f"the jar cache {folder} cannot be made: {failure.strerror}") from failure
    wanting = [a for a in artifacts if not _is_sound(folder, a)]
    if wanting:
        progress(f"fetching {len(wanting)} of {len(artifacts)} files of the {jar_set} jar set")
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda a: _fetch(folder, a, progress), wanting))
    return [_unpacked(folder, a) if a.packaging == "tar.gz" else folder / a.file_name for a in artifacts]


def _is_sound(folder: Path, artifact: Artifact) -> bool:
    """Whether the cached file is the locked one.

    Hashing 270 MB at each start would cost a second, so the size and time of the last sound look stand beside
    the file: any write to it changes them.
    """
    file = folder / artifact.file_name
    seen = folder / f"{artifact.file_name}.sound"
    try:
        stat = file.stat()
        stamp = f"{artifact.sha256} {stat.st_size} {stat.st_mtime_ns}"
        if seen.exists() and seen.read_text() == stamp:
            return True
        if _sha256(file) != artifact.sha256:
            return False
        seen.write_text(stamp)
        return True
    except OSError:
        return False


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _repository() -> str:
    """The Maven repository's address: `DEALERIQ_MAVEN_URL`, else the one that jgo names.

    It is read from jgo's constants without importing jgo, whose own dependencies the set-up environment lacks.
    """
    chosen = os.environ.get("DEALERIQ_MAVEN_URL")
    if chosen:
        return chosen.rstrip("/")
    spec = importlib.util.find_spec("jgo")
    for place in (spec.submodule_search_locations or []) if spec else []:
        constants = (Path(place) / "constants.py").read_text()
        if found := re.search(r'^MAVEN_CENTRAL_URL = "([^"]+)"', constants, re.MULTILINE):
            return found.group(1)
    raise JarUnavailableError("the jgo package, which knows the Maven repository, is not installed")


def _fetch(folder: Path, artifact: Artifact, progress: Callable[[str], None]) -> None:
    base = _repository()
    partial = folder / f".{artifact.file_name}.{os.getpid()}.{threading.get_ident()}"
    reason = ""
    try:
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(2**attempt / 2)
            try:
                with (
                    urllib.request.urlopen(f"{base}/{artifact.path}", timeout=60) as came,
                    partial.open("wb") as out,
                ):
                    shutil.copyfileobj(came, out, 1 << 20)
            except urllib.error.HTTPError as failure:
                reason = f"the repository answered {failure.code}"
                if failure.code == 404:
                    break
                continue
            except urllib.error.URLError as failure:
                reason = f"no connection ({failure.reason})"
                continue
            except (TimeoutError, ConnectionError) as failure:
                reason = f"the connection broke ({failure})"
                continue
            if _sha256(partial) == artifact.sha256:
                partial.replace(folder / artifact.file_name)
                _is_sound(folder, artifact)
                if artifact.packaging == "tar.gz":
                    _unpacked(folder, artifact)
                return
            reason = "what came has another sha-256 than the lock says"
    except OSError as failure:
        reason = f"{folder} cannot be written: {failure.strerror or failure}"
    finally:
        partial.unlink(missing_ok=True)
    progress(f"{artifact.file_name}: {reason}")
    raise JarUnavailableError(f"{artifact.file_name} could not be fetched: {reason}")


def _unpacked(folder: Path, artifact: Artifact) -> Path:
    target = folder / f"{artifact.name}-{artifact.version}-{artifact.sha256[:12]}"
    if target.exists():
        return target
    room = Path(tempfile.mkdtemp(dir=folder, prefix=".unpack-"))
    try:
        with tarfile.open(folder / artifact.file_name) as archive:
            archive.extractall(room, filter="data")
        try:
            room.rename(target)
        except OSError:
            # Another run unpacked the same archive meanwhile.
            if not target.exists():
                raise
    except (OSError, tarfile.TarError) as failure:
        raise JarUnavailableError(f"{artifact.file_name} could not be unpacked: {failure}") from failure
    finally:
        shutil.rmtree(room, ignore_errors=True)
    return target


def main(sets: Iterable[str] = SETS) -> None:
    """Fetches the sets, with a line of progress each; `./run` calls it beside the Python set."""
    import sys

    for jar_set in sets:
        ensure(jar_set, lambda line: print(f"dealeriq: {line}", file=sys.stderr, flush=True))


if __name__ == "__main__":
    main()
