"""Jars: the locked bytes or nothing."""

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dealeriq.runtime import jars
from dealeriq.runtime.errors import JarUnavailableError, NoJavaError
from dealeriq.runtime.java import java_home

CONTENT = b"bytes of a jar"
ARTIFACT = jars.Artifact("org.example", "thing", "1.0", "jar", "", hashlib.sha256(CONTENT).hexdigest())


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A Maven repository on this machine that holds ARTIFACT, and an empty cache."""
    folder = tmp_path / "repository"
    file = folder / ARTIFACT.path
    file.parent.mkdir(parents=True)
    file.write_bytes(CONTENT)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("DEALERIQ_MAVEN_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("DEALERIQ_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(jars, "locked", lambda jar_set: [ARTIFACT])
    yield file
    server.shutdown()
    server.server_close()


def test_every_set_is_locked_with_hashes_and_without_addresses() -> None:
    for jar_set in jars.SETS:
        artifacts = jars.locked(jar_set)
        assert artifacts
        assert all(len(artifact.sha256) == 64 for artifact in artifacts)
    for lock in Path("infra/jars").glob("*/jgo.lock.toml"):
        assert "://" not in lock.read_text()


def test_a_corrupted_jar_is_fetched_again(repository: Path) -> None:
    (jar,) = jars.ensure("x")
    jar.write_bytes(b"bytes of a jag")
    (again,) = jars.ensure("x")
    assert again.read_bytes() == CONTENT


def test_a_sound_jar_is_not_fetched_again(repository: Path) -> None:
    jars.ensure("x")
    repository.unlink()
    (jar,) = jars.ensure("x")
    assert jar.read_bytes() == CONTENT


def test_a_jar_that_is_not_the_locked_one_is_refused(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jars, "_ATTEMPTS", 2)
    repository.write_bytes(b"something else")
    with pytest.raises(JarUnavailableError, match="another sha-256 than the lock says"):
        jars.ensure("x")
    assert not (jars.cache_dir() / "jars" / ARTIFACT.file_name).exists()


def test_no_network_is_one_sentence(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jars, "_ATTEMPTS", 1)
    monkeypatch.setenv("DEALERIQ_MAVEN_URL", "http://127.0.0.1:9")
    with pytest.raises(JarUnavailableError, match=r"thing-1.0.jar could not be fetched: no connection"):
        jars.ensure("x")


def test_no_java_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEALERIQ_JAVA_HOME", str(tmp_path))
    java_home.cache_clear()
    try:
        with pytest.raises(NoJavaError, match="no Java runtime") as caught:
            java_home()
        assert "./run" in caught.value.remedy
    finally:
        java_home.cache_clear()
