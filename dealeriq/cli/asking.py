"""How commands ask the HTTP service that the settings name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from schemas.errors import DealerIQError

if TYPE_CHECKING:
    from dealeriq.client import DealerIQ
    from dealeriq.settings import Settings

__all__ = ["ServiceRefusedError", "asking"]


class ServiceRefusedError(DealerIQError):
    """The HTTP service refused, or was not reached; it says why, and the remedy is its own."""

    exit_code = 4
    remedy = "Start it with `dealeriq demo` or `dealeriq serve`."


@contextmanager
def asking(settings: Settings, url: str | None, timeout_s: float = 5.0) -> Iterator[DealerIQ]:
    """A client of the service at `url`, or of the one that the settings name.

    What it refuses is ServiceRefusedError: exit code 6 for a name that it does not know, else 4.
    """
    from dealeriq.client import DealerIQ, DealerIQClientError, UnknownNameError

    address = url or settings.http.url or f"http://{settings.http.host}:{settings.http.port}"
    token = settings.http.token.get_secret_value() if settings.http.token else None
    with DealerIQ(address, token=token, timeout=timeout_s) as client:
        try:
            yield client
        except DealerIQClientError as error:
            refused = ServiceRefusedError(str(error), remedy=error.remedy)
            refused.exit_code = 6 if isinstance(error, UnknownNameError) else 4
            raise refused from error
