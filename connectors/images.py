"""Pictures by their address: files of one folder, and https: or http: of the hosts that are allowed.

An address comes with an event, so nothing in it is trusted: which folder and which hosts may be read is a
setting, a redirect is held against the same hosts, and a body is given up when it is too large or too slow.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import httpx

from schemas.errors import ContractError, DealerIQError

__all__ = ["AddressRefusedError", "ImageSource", "ImagesUnavailableError"]

_REDIRECTS = 3
_PASSES = (408, 425, 429, 500, 502, 503, 504)  # what a server says that may answer later


class AddressRefusedError(ContractError):
    """Nothing is fetched from the address, or what is there is too large, or nothing is there."""

    remedy = "Mend image_url at its source; image.folder and image.hosts say what may be read."


class ImagesUnavailableError(DealerIQError):
    """The host of pictures does not answer now. Tried again."""

    remedy = "Check the host; what waits for it goes on by itself, and after image.patience_s as a dead letter."
    exit_code = 4


class ImageSource:
    """Fetches pictures; threads may share it.

    Args:
        folder: where `file:` addresses may point into; None: nowhere.
        hosts: hosts, with the port where it is not the usual one, that may be asked.
        most_bytes: of one picture.
        timeout_s: for all of one picture.
        patience_s: how long an address that does not answer is tried before it is refused.
    """

    def __init__(
        self,
        *,
        folder: Path | None,
        hosts: Sequence[str],
        most_bytes: int,
        timeout_s: float,
        patience_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder.resolve() if folder is not None else None
        self._hosts = {each.casefold() for each in hosts}
        self._most, self._timeout_s, self._patience_s = most_bytes, timeout_s, patience_s
        self._clock = clock
        self._failing: dict[str, float] = {}
        self._client = httpx.Client(timeout=timeout_s, follow_redirects=False)

    def fetch(self, address: str) -> bytes:
        """Return what stands at an address. Raises AddressRefusedError, ImagesUnavailableError."""
        try:
            parts = urlsplit(address)
        except ValueError as error:
            raise AddressRefusedError(f"image_url is no address: {error}") from error
        if parts.scheme == "file":
            return self._file(unquote(parts.path), parts.netloc)
        if parts.scheme not in ("https", "http"):
            raise AddressRefusedError(f"image_url has the scheme {parts.scheme!r}, not file, https or http")
        try:
            content = self._asked(address)
        except ImagesUnavailableError as error:
            since = self._failing.setdefault(address, self._clock())
            if self._clock() - since < self._patience_s:
                raise
            self._failing.pop(address, None)
            raise AddressRefusedError(f"{error}, for {self._patience_s:.0f} s") from error
        self._failing.pop(address, None)
        return content

    def _file(self, path: str, host: str) -> bytes:
        if self._folder is None:
            raise AddressRefusedError("image_url names a file, and image.folder is unset")
        if host not in ("", "localhost") or "\x00" in path:
            raise AddressRefusedError("image_url names no file of this machine")
        try:
            file = Path(path).resolve()
            if not file.is_relative_to(self._folder):
                raise AddressRefusedError(f"image_url names {path}, which is not in image.folder")
            if not file.is_file():
                raise AddressRefusedError(f"there is no file {path}")
            with file.open("rb") as opened:
                content = opened.read(self._most + 1)
        except (OSError, RuntimeError) as error:
            raise AddressRefusedError(f"{path} cannot be read: {error}") from error
        return self._within(content)

    def _asked(self, address: str) -> bytes:
        until = self._clock() + self._timeout_s
        for _ in range(_REDIRECTS + 1):
            host = self._allowed(address)
            try:
                with self._client.stream("GET", address) as answer:
                    if answer.is_redirect:
                        address = urljoin(address, answer.headers.get("location", ""))
                        continue
                    if answer.status_code in _PASSES:
                        raise ImagesUnavailableError(f"{host} answers {answer.status_code}")
                    if answer.status_code != 200:
                        raise AddressRefusedError(f"{host} answers {answer.status_code} for the image")
                    content = bytearray()
                    for piece in answer.iter_bytes():
                        content += piece
                        if len(content) > self._most:
                            break
                        if self._clock() > until:
                            raise ImagesUnavailableError(f"{host} takes more than {self._timeout_s:g} s")
                    return self._within(bytes(content))
            except httpx.InvalidURL as error:
                raise AddressRefusedError(f"image_url is no address: {error}") from error
            except httpx.HTTPError as error:
                raise ImagesUnavailableError(f"{host} does not answer: {type(error).__name__}") from error
        raise AddressRefusedError(f"image_url is redirected more than {_REDIRECTS} times")

    def _allowed(self, address: str) -> str:
        try:
            parts = urlsplit(address)
            host, port = (parts.hostname or "").casefold(), parts.port
        except ValueError as error:
            raise AddressRefusedError(f"image_url is no address: {error}") from error
        usual = port is None or port == {"https": 443, "http": 80}.get(parts.scheme)
        name = host if usual else f"{host}:{port}"
        if parts.scheme not in ("https", "http") or name not in self._hosts:
            raise AddressRefusedError(f"image_url leads to {name or 'no host'}, which is not in image.hosts")
        return name

    def _within(self, content: bytes) -> bytes:
        if len(content) > self._most:
            raise AddressRefusedError(f"the image has more than {self._most:,} bytes (image.most_bytes)")
        return content
