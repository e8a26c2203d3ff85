"""A command finds the system that runs on its data folder, and no other."""

import fcntl
import json
from pathlib import Path

import pytest

from dealeriq import running
from dealeriq.runtime import Supervisor
from dealeriq.runtime.errors import DataFolderBusyError
from dealeriq.settings import load


def environment(folder: Path, **more: str) -> dict[str, str]:
    return {"DEALERIQ_DATA_DIR": str(folder), **more}


def test_addresses_are_found_while_the_folder_is_held(tmp_path: Path) -> None:
    settings = load(environment(tmp_path), running=False)
    settings.kafka.bootstrap = "127.0.0.1:1234"
    flink = settings.flink
    flink.url, flink.lib_dir, flink.checkpoint_dir = "http://f:8081", "lib", "file:checkpoints"
    running.publish(tmp_path, settings)
    assert load(environment(tmp_path)).kafka.bootstrap is None  # nobody holds it: a run that was killed
    with (tmp_path / running.LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        seen = environment(tmp_path)
        found = load(seen)
        assert found.kafka.bootstrap == "127.0.0.1:1234"
        assert found.redis.url is None
        # A job is submitted with all three.
        assert (found.flink.url, found.flink.lib_dir) == ("http://f:8081", "lib")
        assert found.flink.checkpoint_dir == "file:checkpoints"
        source = {value.name: value.source for value in found.values(seen)}
        assert source["kafka.bootstrap"] == f"system running in {tmp_path}"
        assert source["redis.url"] == "default"
        assert load(environment(tmp_path, DEALERIQ_KAFKA__BOOTSTRAP="k:9")).kafka.bootstrap == "k:9"
        file = tmp_path / "dealeriq.toml"
        file.write_text('[kafka]\nbootstrap = "file:9"\n[registry]\nurl = "http://file"\n')
        given = load(environment(tmp_path, DEALERIQ_CONFIG=str(file)))
        assert (given.kafka.bootstrap, given.registry.url) == ("file:9", "http://file")
        assert load(environment(tmp_path), running=False).kafka.bootstrap is None
    running.withdraw(tmp_path)
    running.withdraw(tmp_path)
    assert running.found(tmp_path) == {}


@pytest.mark.parametrize("content", ["", "{", "[]", '"x"'])
def test_a_damaged_file_is_passed_over(tmp_path: Path, content: str) -> None:
    (tmp_path / "running.json").write_text(content)
    with (tmp_path / running.LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert running.found(tmp_path) == {}


def test_the_supervisor_makes_its_services_known_and_takes_that_back(tmp_path: Path) -> None:
    given = load(environment(tmp_path), running=False)
    with Supervisor(given, ("redis",), tmp_path, prefer_default_ports=False) as supervisor:
        found = load(environment(tmp_path))
        assert found.redis.address == supervisor.settings.redis.address
        assert json.loads((tmp_path / "running.json").read_text())["redis"]
        assert (tmp_path / "running.json").stat().st_mode & 0o077 == 0
        with pytest.raises(DataFolderBusyError), Supervisor(found, ("redis",), tmp_path):
            pass
    assert load(environment(tmp_path)).redis.url is None
