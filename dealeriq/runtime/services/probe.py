"""Probes of readiness that never raise."""

import socket
import urllib.error
import urllib.request

__all__ = ["answers", "listens"]


def listens(port: int, host: str = "127.0.0.1") -> bool:
    """Whether something accepts connections on the port."""
    try:
        with socket.create_connection((host, port), timeout=0.5):
            return True
    except OSError:
        return False


def answers(url: str) -> bytes | None:
    """The body that the URL gives with a 200, else None."""
    try:
        with urllib.request.urlopen(url, timeout=1.0) as answer:
            return bytes(answer.read()) if answer.status == 200 else None
    except (OSError, ValueError, urllib.error.HTTPError):
        return None
