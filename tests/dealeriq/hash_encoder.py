"""A service that speaks OpenAI's embeddings API, in the test's process, and counts what it is given.

A vector is the sum of a fixed random direction for each word: equal words, equal vectors.
"""

from __future__ import annotations

import json
import threading
import zlib
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

__all__ = ["DIMENSION", "HashService", "vector"]

DIMENSION = 48


def vector(text: str) -> np.ndarray:
    """The vector of a text, of length 1."""
    words = [zlib.crc32(word.strip(".,").lower().encode()) for word in text.split()] or [0]
    found = sum(np.random.default_rng(word).normal(size=DIMENSION) for word in words)
    return (found / np.linalg.norm(found)).astype("<f4")


class HashService:
    """Answers at `address` until `close`; `seen` counts each text that it was given."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                service.seen.update(body["input"])
                rows = [
                    {"index": at, "embedding": vector(text).astype(float).tolist()}
                    for at, text in enumerate(body["input"])
                ]
                tokens = sum(len(text) // 4 for text in body["input"])
                answer = json.dumps({"data": rows, "usage": {"total_tokens": tokens}}).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
