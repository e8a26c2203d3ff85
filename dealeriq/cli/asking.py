"""How commands reach the HTTP service that the settings name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from schemas.errors import DealerIQError

if TYPE_CHECKING:
    from dealeriq.client import DealerIQ
    from dealeriq.settings import Settings

__all__ = ["ServiceRefusedError", "client_of"]


class ServiceRefusedError(DealerIQError):
    """The HTTP service refused, or was not reached; it says why, and the remedy is its own."""

    exit_code = 4
    remedy = "Start it with `dealeriq demo` or `dealeriq serve`."


def client_of(settings: Settings, url: str | None, timeout_s: float = 5.0) -> DealerIQ:
    """Return a client of the service at `url`, or of the one that the settings name."""
    from dealeriq.client import DealerIQ

    address = url or settings.http.url or f"http://{settings.http.host}:{settings.http.port}"
    token = settings.http.token.get_secret_value() if settings.http.token else None
    return DealerIQ(address, token=token, timeout=timeout_s)
