"""Feast's own store: its configuration for our Redis, and applying the definitions to it.

Feast is imported inside the functions: it takes seconds and pulls torch, and no hot path needs it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from connectors.settings import RedisSettings
from features.plan import PlanError

if TYPE_CHECKING:  # the lake's module loads pyarrow, which no hot path needs
    from connectors.lake import Lake

__all__ = ["apply", "connection_string", "open_store", "write_config"]


def connection_string(redis: RedisSettings) -> str:
    """Return the address in Feast's own form, host:port,name=value... Raises AddressNotSetError, PlanError."""
    parts = urlsplit(redis.address)
    if parts.scheme not in ("redis", "rediss") or not parts.hostname:
        raise PlanError(
            f"Feast cannot reach {parts.scheme}://; it knows redis:// and rediss://",
            remedy="Set redis.url to a TCP address of the same server.",
        )
    if ":" in parts.hostname:
        raise PlanError(
            "Feast cannot reach a bare IPv6 address", remedy="Give the server of redis.url a host name."
        )
    database = parts.path.strip("/") or parse_qs(parts.query).get("db", ["0"])[0]
    given: dict[str, Any] = {"db": int(database)}
    if parts.username:
        given["username"] = unquote(parts.username)
    if parts.password:
        given["password"] = unquote(parts.password)
    if parts.scheme == "rediss":
        given["ssl"] = True
        given |= {k: v for k, v in redis.client_config().items() if k.startswith("ssl_")}
    # Feast splits at commas and reads each value as JSON, in which a comma can be written without one.
    pairs = [f"{name}={json.dumps(value).replace(',', chr(92) + 'u002c')}" for name, value in given.items()]
    return ",".join([f"{parts.hostname}:{parts.port or 6379}", *pairs])


def write_config(redis: RedisSettings, project: str, folder: Path, lake: Lake | None = None) -> Path:
    """Write feature_store.yaml, readable by its owner only because it may hold a password; return its path.

    With `lake` historical features come from there; without it Feast needs nothing of ours to open the store.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "feature_store.yaml"
    config = {
        "project": project,
        "provider": "local",
        "registry": {"path": str((folder / "registry.db").resolve()), "cache_ttl_seconds": 60},
        "online_store": {"type": "redis", "connection_string": connection_string(redis)},
        "offline_store": {"type": "dask"},
        "entity_key_serialization_version": 3,
    }
    if lake is not None:
        config["offline_store"] = {
            "type": "features.history.offline_store.LakeOfflineStore",
            "lake": lake.url,
            "storage_options": dict(lake.options),
        }
    path.touch(mode=0o600)
    path.write_text(json.dumps(config, indent=1) + "\n", "utf-8")  # JSON is YAML
    return path


def open_store(config: Path) -> Any:
    """Return the `feast.FeatureStore` of a feature_store.yaml."""
    from feast import FeatureStore

    return FeatureStore(fs_yaml_file=config)


def apply(config: Path) -> list[str]:
    """Apply the definitions of `features/repo` to Feast's registry; return the names of what was applied."""
    from features.repo import entities, now, services, views

    objects = [
        entities.dealer, entities.category, entities.product,
        *views.VIEWS, *now.NOW.values(), *services.SERVICES,
    ]  # fmt: skip
    open_store(config).apply(objects)
    return [each.name for each in objects]
