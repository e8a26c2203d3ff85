"""Redis: a client that knows, whenever it connects, what kind of server it speaks to."""

from __future__ import annotations

from typing import Any

from redis import Redis
from redis.exceptions import RedisError, ResponseError

from connectors.resp import CommandPacker
from connectors.settings import RedisSettings
from schemas.errors import DealerIQError

__all__ = ["RedisClusterError", "connect", "refuse_cluster"]


class RedisClusterError(DealerIQError):
    """The address leads to a Redis Cluster, in which data and position cannot move in one step."""

    remedy = (
        "Set redis.url to one primary, with replicas for failover: a server, or a managed instance, with "
        "cluster mode off."
    )
    exit_code = 3


def connect(settings: RedisSettings) -> Any:
    """Return a `redis.Redis` whose answers are bytes; nothing is sent yet.

    Its first command, and any after a lost connection, raises RedisClusterError where a cluster answers: also
    when Redis was down at first, and another server took its place.
    """

    def look(connection: Any) -> None:
        connection.on_connect()
        try:
            connection.send_command("INFO", "cluster", check_health=False)
            answer = connection.read_response()
        except ResponseError:  # a user without the right to ask; a cluster then shows by its MOVED
            return
        text = answer.decode() if isinstance(answer, bytes) else str(answer)
        if "cluster_enabled:1" in text:
            connection.disconnect()
            raise RedisClusterError(
                f"Redis at {shown(settings)} runs in cluster mode, which is not supported: a view writes its "
                "data and its position in one step, and a cluster can do that only inside one hash slot"
            )

    return Redis.from_url(
        settings.address, **settings.client_config(), redis_connect_func=look, command_packer=CommandPacker()
    )


def refuse_cluster(settings: RedisSettings) -> None:
    """Raise RedisClusterError where the address leads to a cluster; a server that is away is not judged."""
    client = connect(settings)
    try:
        client.ping()
    except RedisError:
        pass
    finally:
        client.close()


def shown(settings: RedisSettings) -> str:
    """Return the address without credentials."""
    return settings.address.rpartition("://")[2].rpartition("@")[2]
