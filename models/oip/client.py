"""Asking an endpoint of the protocol, within a time: over REST with binary tensors, or over gRPC."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Any
from urllib.parse import quote, urlsplit

from models.oip.call import InferAnswer, InferCall
from models.oip.messages import SERVICE, answer_of, message_of_call, messages
from models.oip.rest import HEADER_LENGTH, read_answer, write_call
from models.oip.tensors import ProtocolError
from schemas.errors import DealerIQError

__all__ = ["Endpoint", "RemoteUnavailableError", "endpoint"]

_MOST_BYTES = 256 * 1024 * 1024


class RemoteUnavailableError(DealerIQError):
    """The endpoint did not answer in time, refused, or answered something else than the model's outputs."""

    remedy = "See that the endpoint serves this version (runtime.remote); scoring goes on by itself."
    exit_code = 4


class Endpoint(ABC):
    """One address; threads may share it.

    `infer` returns or raises RemoteUnavailableError within the timeout, whatever the other side does.
    """

    def __init__(self, address: str, timeout_s: float, token: str | None) -> None:
        self.address, self.timeout_s, self._token = address, timeout_s, token

    @abstractmethod
    def infer(self, call: InferCall) -> InferAnswer:
        """Ask a model. Raises RemoteUnavailableError."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the connections."""


def endpoint(address: str, timeout_s: float, token: str | None = None) -> Endpoint:
    """Return what asks an address: http://, https://, grpc:// or grpcs://. Raises ValueError for others."""
    scheme = urlsplit(address).scheme
    if scheme in ("http", "https"):
        return _Rest(address.rstrip("/"), timeout_s, token)
    if scheme in ("grpc", "grpcs"):
        return _Grpc(address, timeout_s, token)
    raise ValueError(f"{address} begins with none of http://, https://, grpc://, grpcs://")


class _Rest(Endpoint):
    def __init__(self, address: str, timeout_s: float, token: str | None) -> None:
        import httpx

        super().__init__(address, timeout_s, token)
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self._client = httpx.Client(base_url=address, timeout=timeout_s, headers=headers)

    def infer(self, call: InferCall) -> InferAnswer:
        import httpx

        deadline = time.monotonic() + self.timeout_s
        body = write_call(call)
        headers = {"content-type": body.content_type}
        if body.header_length is not None:
            headers[HEADER_LENGTH] = str(body.header_length)
        version = f"/versions/{quote(call.version, safe='')}" if call.version else ""
        path = f"/v2/models/{quote(call.model, safe='')}{version}/infer"
        try:
            with self._client.stream("POST", path, content=body.content, headers=headers) as answer:
                parts, size = [], 0
                for part in answer.iter_bytes():
                    parts.append(part)
                    size += len(part)
                    # httpx bounds each read, and one that trickles would go on for ever.
                    if time.monotonic() > deadline or size > _MOST_BYTES:
                        raise RemoteUnavailableError(f"{self.address} had not answered in {self.timeout_s:g} s")
            raw = b"".join(parts)
            if answer.status_code != 200:
                words = raw[:300].decode("utf-8", "replace")
                raise RemoteUnavailableError(f"{self.address} answers {answer.status_code}: {words}")
            return read_answer(call.model, raw, answer.headers.get(HEADER_LENGTH))
        except httpx.TimeoutException as error:
            raise RemoteUnavailableError(f"{self.address} had not answered in {self.timeout_s:g} s") from error
        except (httpx.HTTPError, ProtocolError) as error:
            raise RemoteUnavailableError(f"{self.address}: {error}") from error

    def close(self) -> None:
        self._client.close()


class _Grpc(Endpoint):
    def __init__(self, address: str, timeout_s: float, token: str | None) -> None:
        import grpc

        super().__init__(address, timeout_s, token)
        parts = urlsplit(address)
        options = [("grpc.max_receive_message_length", _MOST_BYTES)]
        if parts.scheme == "grpcs":
            self._channel: Any = grpc.secure_channel(parts.netloc, grpc.ssl_channel_credentials(), options)
        else:
            self._channel = grpc.insecure_channel(parts.netloc, options)
        self._infer = self._channel.unary_unary(
            f"/{SERVICE}/ModelInfer",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=messages()["ModelInferResponse"].FromString,
        )

    def infer(self, call: InferCall) -> InferAnswer:
        import grpc

        metadata = [("authorization", f"Bearer {self._token}")] if self._token else None
        try:
            answer = self._infer(message_of_call(call), timeout=self.timeout_s, metadata=metadata)
            return answer_of(answer)
        except grpc.RpcError as error:
            told: Any = error
            words = f"{told.code().name}: {told.details()}"
            raise RemoteUnavailableError(f"{self.address} answers {words}") from error
        except ProtocolError as error:
            raise RemoteUnavailableError(f"{self.address}: {error}") from error

    def close(self) -> None:
        self._channel.close()
