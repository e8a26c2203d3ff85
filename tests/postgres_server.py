"""A PostgreSQL of its own for tests, from a package."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dealeriq.runtime.ports import is_free

__all__ = ["USER", "postgres"]

USER = "dealeriq"


def _open_to_all(folder: Path) -> bool:
    return all(each.stat().st_mode & 0o001 for each in (folder, *folder.parents))


@contextmanager
def postgres() -> Iterator[tuple[Any, int]]:
    """Run a server that decodes its log; give a connection to its database `postgres`, and its port.

    Whoever connects as USER is trusted. It refuses to run as root.
    """
    import pg8000.native
    import pgserver

    as_root = os.geteuid() == 0
    # As root it runs as another user, who must be let into every folder above its own.
    rooms = (tempfile.gettempdir(), "/var/tmp")
    where = next(each for each in rooms if not as_root or _open_to_all(Path(each)))
    folder = Path(tempfile.mkdtemp(prefix="dealeriq-postgres-", dir=where))
    tools = Path(pgserver.__file__).parent / "pginstall" / "bin"
    port = next(port for port in range(25_400, 26_000) if is_free(port))
    who: dict[str, Any] = {"user": "nobody"} if as_root else {}
    if as_root:
        # Another user may not be let into the folder of our environment.
        package = Path(pgserver.__file__).parent
        shutil.copytree(package / "pginstall", folder / "pgserver" / "pginstall")
        shutil.copytree(package.with_name("pgserver.libs"), folder / "pgserver.libs")
        tools = folder / "pgserver" / "pginstall" / "bin"
        os.chown(folder, pwd.getpwnam("nobody").pw_uid, -1)
    data = folder / "data"

    def call(*words: str | Path) -> None:
        subprocess.run([str(part) for part in words], check=True, cwd=folder, stdout=subprocess.DEVNULL, **who)

    call(tools / "initdb", "-D", data, "-U", USER, "--auth=trust", "--encoding=UTF8", "--no-sync")
    options = f"-c wal_level=logical -c listen_addresses=127.0.0.1 -p {port} -k {folder} -c fsync=off"
    call(tools / "pg_ctl", "-D", data, "-w", "-t", "120", "-o", options, "-l", folder / "log", "start")
    try:
        with pg8000.native.Connection(USER, host="127.0.0.1", port=port, database="postgres") as connection:
            yield connection, port
    finally:
        call(tools / "pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)
