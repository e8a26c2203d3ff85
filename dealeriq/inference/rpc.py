"""The protocol over gRPC: the six calls of `GRPCInferenceService`, on a few threads."""

from __future__ import annotations

import hmac
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from connectors.log import get_logger
from dealeriq.http.server import AddressTakenError
from dealeriq.inference.answering import EXTENSIONS, NAME, Answering, server_version
from dealeriq.inference.versions import NoSuchModelError
from models.lifecycle import NoSuchVersionError
from models.oip.messages import METHODS, SERVICE, call_of, message_of_answer, messages
from models.oip.tensors import ProtocolError
from schemas.errors import DealerIQError
from streams.metrics import DURATION_BUCKETS, REGISTRY, BatchHistogram, StageMeters

__all__ = ["start"]

DURATION = BatchHistogram(
    "dealeriq_inference_rpc_seconds", "Seconds to answer a request of the protocol over gRPC", "api",
    DURATION_BUCKETS, REGISTRY,
)  # fmt: skip
_OPEN = ("ServerLive", "ServerReady")
_STATUS: tuple[tuple[type[DealerIQError], grpc.StatusCode], ...] = (
    (ProtocolError, grpc.StatusCode.INVALID_ARGUMENT),
    (NoSuchModelError, grpc.StatusCode.NOT_FOUND),
    (NoSuchVersionError, grpc.StatusCode.NOT_FOUND),
    (DealerIQError, grpc.StatusCode.UNAVAILABLE),  # the model's folder, or the endpoint that answers for it
)
log = get_logger("dealeriq.inference")


def start(
    answering: Answering, host: str, port: int, *, threads: int, most_bytes: int, token: str | None = None
) -> grpc.Server:
    """Serve, and say where; `stop` of what is returned ends it. Raises AddressTakenError.

    Args:
        answering: what answers.
        host: address to listen on.
        port: port; 0 takes a free one.
        threads: calls at the same time.
        most_bytes: of a message.
        token: bearer token that a call's metadata must carry, but for liveness and readiness; None: none.
    """
    server = grpc.server(
        ThreadPoolExecutor(threads, thread_name_prefix="inference-rpc"),
        options=[
            ("grpc.max_receive_message_length", most_bytes),
            ("grpc.max_send_message_length", most_bytes),
            ("grpc.so_reuseport", 0),
        ],
    )
    calls = _Calls(answering)
    known = messages()
    meters = StageMeters("inference")
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            _answered(getattr(calls, name), name, meters, None if name in _OPEN else token),
            request_deserializer=known[f"{name}Request"].FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )
        for name in METHODS
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    where = f"[{host}]" if ":" in host else host
    try:
        bound = server.add_insecure_port(f"{where}:{port}")
    except RuntimeError as error:
        raise AddressTakenError(f"{host}:{port} cannot be listened on: {error}") from error
    server.start()
    print(f"inference on grpc://{where}:{bound}", file=sys.stderr, flush=True)
    return server


class _Calls:
    """One method for each call, from message to message; what it raises becomes the status."""

    def __init__(self, answering: Answering) -> None:
        self._answering, self._known = answering, messages()

    def ServerLive(self, _request: Any) -> Any:  # noqa: N802
        return self._known["ServerLiveResponse"](live=True)

    def ServerReady(self, _request: Any) -> Any:  # noqa: N802
        return self._known["ServerReadyResponse"](ready=self._answering.versions.ready)

    def ServerMetadata(self, _request: Any) -> Any:  # noqa: N802
        return self._known["ServerMetadataResponse"](name=NAME, version=server_version(), extensions=EXTENSIONS)

    def ModelReady(self, request: Any) -> Any:  # noqa: N802
        ready = self._answering.model_ready(request.name, request.version)
        return self._known["ModelReadyResponse"](ready=ready)

    def ModelMetadata(self, request: Any) -> Any:  # noqa: N802
        told = self._answering.model(request.name, request.version)
        tensors = {
            side: [{name: each[name] for name in ("name", "datatype", "shape")} for each in told[side]]
            for side in ("inputs", "outputs")
        }
        return self._known["ModelMetadataResponse"](
            name=told["name"], versions=told["versions"], platform=told["platform"], **tensors
        )

    def ModelInfer(self, request: Any) -> Any:  # noqa: N802
        return message_of_answer(self._answering.infer(call_of(request)))


def _answered(
    call: Callable[[Any], Any], name: str, meters: StageMeters, token: str | None
) -> Callable[[Any, Any], Any]:
    def answer(request: Any, context: Any) -> Any:
        began = time.perf_counter()
        try:
            if token is not None and not _allowed(context, token):
                meters.count("refused")
                words = "the call carries no token that is right (setting http.token)"
                context.abort(grpc.StatusCode.UNAUTHENTICATED, words)
            answer = call(request)
            meters.count("ok")
            return answer
        except DealerIQError as error:
            status = next(code for kind, code in _STATUS if isinstance(error, kind))
            unavailable = status is grpc.StatusCode.UNAVAILABLE
            meters.count("failed" if unavailable else "refused")
            context.abort(status, error.told if unavailable else str(error))
        except Exception as error:
            if context.code() is not None:  # ended by `abort`
                raise
            meters.error(error)
            meters.count("failed")
            log.exception("call failed", call=name)
            context.abort(grpc.StatusCode.INTERNAL, f"{type(error).__name__} in the inference process")
        finally:
            DURATION.observe_repeated(name, time.perf_counter() - began, 1)

    return answer


def _allowed(context: Any, token: str) -> bool:
    given = next((v for k, v in context.invocation_metadata() if k == "authorization"), "")
    return hmac.compare_digest(str(given).encode(), b"Bearer " + token.encode())
