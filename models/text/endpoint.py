"""Vectors from a service that speaks OpenAI's embeddings API: a hosted one, or a model server of your own."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import numpy as np

from models.encoding import Encoder, EncoderError, EncoderUnavailableError, Vectors
from models.settings import TextSettings
from schemas.errors import ContractError

__all__ = ["EndpointTextEncoder", "TextRefusedError"]

_CHARACTERS_A_TOKEN = 4
_DAY_S = 86_400


class TextRefusedError(ContractError):
    """The service does not take this one text."""

    remedy = "Shorten it (text.max_tokens cuts what is longer), or look at what the service says about it."


class EndpointTextEncoder(Encoder):
    """Asks `<endpoint>/embeddings` in batches, within a rate and a daily budget of tokens.

    What passes by itself (no connection, 429, 5xx) is asked again with growing waits, or when `Retry-After`
    says; after `text.endpoint_patience_s` it is EncoderUnavailableError. A batch that is refused goes again
    text by text, so that one text cannot take others along. The version is the hash of the address and the
    model's name: which weights are behind them is the service's word. Lengths are cut by characters, four for
    a token.

    Args:
        settings: where, which model, and how much.
        tokens: told how many tokens an answer took, by the service's count.
        transport: how httpx reaches it; None is the network.
        clock, sleep: seconds, and how to wait them.

    Raises:
        EncoderError: no model is named, or the service refuses us.
        EncoderUnavailableError: it does not answer now.
    """

    def __init__(
        self,
        settings: TextSettings,
        *,
        tokens: Callable[[int], None] = lambda count: None,
        transport: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if settings.endpoint is None or not settings.endpoint_model:
            raise EncoderError(
                "text.endpoint needs text.endpoint_model", remedy="Name the model that the service is to use."
            )
        self._settings, self._tell, self._clock, self._sleep = settings, tokens, clock, sleep
        key = settings.endpoint_key
        self._client = httpx.Client(
            base_url=str(settings.endpoint).rstrip("/") + "/",
            headers={"Authorization": f"Bearer {key.get_secret_value()}"} if key else {},
            timeout=settings.endpoint_timeout_s,
            transport=transport,
        )
        self._lock = threading.Lock()
        self._asked: deque[float] = deque()
        self._day, self._spent = 0, 0
        self.name = settings.endpoint_model
        where = f"{settings.endpoint} {settings.endpoint_model}"
        self.version = hashlib.sha256(where.encode()).hexdigest()[:12]
        self.max_tokens = settings.max_tokens
        self.dimension = 0
        self.dimension = int(self.encode(["a"]).shape[1])

    def encode(self, batch: Sequence[str]) -> Vectors:
        """Return float32 [len(batch), dimension], rows of length 1, in the batch's order."""
        longest = self._settings.max_tokens * _CHARACTERS_A_TOKEN
        texts = [" ".join(text.split())[:longest] or " " for text in batch]
        size = self._settings.endpoint_batch
        parts = [self._part(texts[start : start + size]) for start in range(0, len(texts), size)]
        return np.concatenate(parts) if parts else np.empty((0, self.dimension), np.float32)

    def _part(self, texts: list[str]) -> Vectors:
        try:
            return self._ask(texts)
        except TextRefusedError:
            if len(texts) == 1:
                raise
            return np.concatenate([self._ask([text]) for text in texts])

    def _ask(self, texts: list[str]) -> Vectors:
        body = {"model": self.name, "input": texts, "encoding_format": "float"}
        give_up, wait_s = self._clock() + self._settings.endpoint_patience_s, 0.5
        while True:
            self._within_limits(texts)
            try:
                answer = self._client.post("embeddings", json=body)
            except httpx.HTTPError as error:
                said, after_s = f"{type(error).__name__}: {error}", 0.0
            else:
                if answer.status_code == 200:
                    return self._vectors(answer, len(texts))
                said = f"{answer.status_code}: {answer.text[:300]}"
                if answer.status_code in (401, 403, 404):
                    raise EncoderError(
                        f"{self._settings.endpoint} refuses us with {said}",
                        remedy="Check text.endpoint, text.endpoint_model and text.endpoint_key.",
                    )
                if answer.status_code < 500 and answer.status_code not in (408, 409, 429):
                    raise TextRefusedError(f"{self.name} does not take the text: {said}")
                after_s = _seconds(answer.headers.get("retry-after"))
            if self._clock() + max(wait_s, after_s) > give_up:
                raise EncoderUnavailableError(f"{self._settings.endpoint} does not encode: {said}")
            self._sleep(max(wait_s, after_s))
            wait_s = min(2 * wait_s, 30.0)

    def _within_limits(self, texts: list[str]) -> None:
        """Wait for the rate's next place. Raises EncoderUnavailableError when the day's tokens are spent."""
        settings = self._settings
        with self._lock:
            now = self._clock()
            if int(now // _DAY_S) != self._day:
                self._day, self._spent = int(now // _DAY_S), 0
            about = sum(map(len, texts)) // _CHARACTERS_A_TOKEN + 1
            if settings.endpoint_tokens_per_day is not None:
                left = settings.endpoint_tokens_per_day - self._spent
                if about > left:
                    raise EncoderUnavailableError(
                        f"{max(left, 0):,} of {settings.endpoint_tokens_per_day:,} tokens are left today, "
                        f"and the next batch takes about {about:,}",
                        remedy="Wait for the next day (UTC), or raise text.endpoint_tokens_per_day.",
                    )
            place_s = now
            if settings.endpoint_requests_per_minute is not None:
                while self._asked and self._asked[0] <= now - 60:
                    self._asked.popleft()
                if len(self._asked) >= settings.endpoint_requests_per_minute:
                    place_s = self._asked[-settings.endpoint_requests_per_minute] + 60
                self._asked.append(place_s)
        if place_s > now:
            self._sleep(place_s - now)

    def _vectors(self, answer: httpx.Response, count: int) -> Vectors:
        try:
            body: dict[str, Any] = answer.json()
            rows = sorted(body["data"], key=lambda row: row["index"])
            found = np.array([row["embedding"] for row in rows], np.float32)
            tokens = int((body.get("usage") or {}).get("total_tokens") or 0)
        except (ValueError, KeyError, TypeError) as error:
            raise EncoderUnavailableError(
                f"{self._settings.endpoint} answers with no vectors: {error}"
            ) from error
        with self._lock:
            self._spent += tokens
        self._tell(tokens)
        wanted = (count, self.dimension or found.shape[-1])
        lengths = np.linalg.norm(found, axis=1, keepdims=True) if found.shape == wanted else None
        if lengths is None or not np.isfinite(lengths).all() or not lengths.all():
            raise EncoderUnavailableError(
                f"{self._settings.endpoint} answers with vectors of shape {list(found.shape)}, "
                f"not {list(wanted)}, or with numbers that are none"
            )
        vectors: Vectors = (found / lengths).astype(np.float32)
        return vectors


def _seconds(retry_after: str | None) -> float:
    """Seconds of the header; 0 for a date or nothing: growing waits do then."""
    return float(retry_after) if retry_after is not None and retry_after.isdigit() else 0.0
