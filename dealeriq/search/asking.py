"""Asking the search process about its index, from another process of ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx

from dealeriq.settings import Settings

__all__ = ["asker"]

_PATIENCE_S = 120.0


def asker(settings: Settings) -> Callable[[str, Any], Any]:
    """Return what asks: (path, body) → JSON. It raises IndexAwayError where nobody answers."""
    from streams.verify.vectors import IndexAwayError

    address = settings.search.address()
    token = settings.http.token.get_secret_value() if settings.http.token else None
    headers = {"authorization": f"Bearer {token}"} if token else {}

    def ask(path: str, body: Any) -> Any:
        try:
            answer = httpx.post(f"{address}{path}", json=body, headers=headers, timeout=_PATIENCE_S)
            answer.raise_for_status()
        except httpx.HTTPError as error:
            raise IndexAwayError(f"the search process at {address} does not answer: {error}") from error
        return answer.json()

    return ask
