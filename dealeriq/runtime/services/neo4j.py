"""Neo4j Community with Graph Data Science: the graph of products, dealers and orders."""

import socket
from pathlib import Path

from dealeriq.runtime.jars import Artifact, ensure, locked
from dealeriq.runtime.java import java
from dealeriq.runtime.services.base import Service
from dealeriq.settings import Settings

__all__ = ["SERVER_OPTIONS", "Neo4j"]

# What the code relies on of any server; docker-compose.yml carries the same, and a test compares them.
SERVER_OPTIONS = {
    # Graph Data Science reaches behind the procedure interface.
    "dbms.security.procedures.unrestricted": "gds.*",
    # A commit is on disk before it is answered; what lies before the last checkpoint is not kept beside it.
    "db.tx_log.rotation.retention_policy": "1 files",
}
_PLUGINS = "org.neo4j.gds"
# The JVM options that Neo4j's own start script gives.
_OPENED = (
    "--add-opens=java.base/java.nio=ALL-UNNAMED", "--add-opens=java.base/java.io=ALL-UNNAMED",
    "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED", "--add-opens=java.base/java.util.concurrent=ALL-UNNAMED",
    "--enable-native-access=ALL-UNNAMED",
)  # fmt: skip
# The Bolt handshake: its magic number and the one version asked for, 5.0 to 5.4.
_HELLO = bytes.fromhex("6060b017 00040405 00000000 00000000 00000000")


class Neo4j(Service):
    """One server on one port, for this machine only and without a password."""

    name = "neo4j"
    patience_s = 600.0  # some 15 s where nothing else runs

    @property
    def port(self) -> int:
        """The port of its Bolt protocol."""
        return self.room.ports.take("neo4j", 7687)

    @property
    def address(self) -> str:
        """The Bolt address."""
        return f"bolt://127.0.0.1:{self.port}"

    def prepare(self) -> list[str]:
        """Fetches the jars on first use and writes the configuration."""
        home = self.room.folder("neo4j").resolve()
        jars = dict(zip(locked("neo4j"), ensure("neo4j", self.room.progress), strict=True))
        _link_plugins(home / "plugins", jars)
        options = {
            "server.default_listen_address": "127.0.0.1",
            "server.bolt.listen_address": f"127.0.0.1:{self.port}",
            "server.bolt.advertised_address": f"127.0.0.1:{self.port}",
            "server.http.enabled": "false",
            "server.directories.data": str(home / "data"),
            "server.directories.logs": str(home / "logs"),
            "server.directories.plugins": str(home / "plugins"),
            "server.memory.pagecache.size": f"{self.settings.graph.page_cache_mb}m",
            "dbms.security.auth_enabled": "false",
            "dbms.usage_report.enabled": "false",
            "db.tx_log.preallocate": "false",
            **SERVER_OPTIONS,
        }
        configuration = home / "conf"
        configuration.mkdir(exist_ok=True)
        (configuration / "neo4j.conf").write_text("".join(f"{key}={value}\n" for key, value in options.items()))
        heap = f"{self.settings.graph.heap_mb}m"
        return [
            java(), "-Xms128m", f"-Xmx{heap}", "-XX:+UseSerialGC", "-XX:MaxDirectMemorySize=256m",
            "-XX:+ExitOnOutOfMemoryError", "-XX:-OmitStackTraceInFastThrow", *_OPENED,
            "-cp", ":".join(map(str, jars.values())), "org.neo4j.server.CommunityEntryPoint",
            f"--home-dir={home}", f"--config-dir={configuration}",
        ]  # fmt: skip

    def ready(self) -> bool:
        """Whether it agrees on a version of the protocol, which it does not before its databases are open."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=0.5) as connection:
                connection.sendall(_HELLO)
                return len(connection.recv(4)) == 4
        except OSError:
            return False

    def resolve(self, settings: Settings) -> None:
        """Sets graph.url."""
        settings.graph.url = self.address


def _link_plugins(folder: Path, jars: dict[Artifact, Path]) -> None:
    """Show the server the jars that hold procedures: it looks for them in a folder of their own."""
    folder.mkdir(exist_ok=True)
    wanted = {path.name: path for artifact, path in jars.items() if artifact.group == _PLUGINS}
    for link in folder.iterdir():
        if link.name not in wanted or not link.exists():
            link.unlink()
    for name, path in wanted.items():
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(path.resolve())
