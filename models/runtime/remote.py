"""A version that another server answers for: Triton, KServe, Seldon, by the Open Inference Protocol.

The local session stays: it proves that the endpoint serves the same file before its first answer counts, and
answers in its place while it is away.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from connectors.log import get_logger
from models.oip.call import InferAnswer, InferCall
from models.oip.client import Endpoint, RemoteUnavailableError, endpoint
from models.oip.tensors import ProtocolError, Tensor
from models.runtime.breaker import Breaker
from models.runtime.session import RuntimeSettings, Session

__all__ = ["RemoteSession"]

Vectors = NDArray[np.float32]
_PROOF_ROWS = 64
_TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}  # other hardware rounds otherwise; another model is farther away
log = get_logger("dealeriq.models")


class RemoteSession(Session):
    """One version, answered by an endpoint. Threads may share it.

    A batch that the endpoint does not answer in `remote_timeout_s`, or wrongly, is answered by the local
    session (`remote_fallback` "local"), or raises RemoteUnavailableError ("wait"): whoever scores then tries
    again. After `remote_failures` in a row the endpoint is left alone for `remote_retry_s`.

    Args:
        folder: the version's own folder.
        settings: `remote` is set.
        version: what the endpoint calls it.
        watch: told of each batch: the model, and who answered it (`remote`, `local`, or `refused`: nobody).

    Raises ArtifactError, and ValueError for an address of another scheme.
    """

    _endpoint: Endpoint | None = None

    def __init__(
        self, folder: Path, settings: RuntimeSettings, version: str,
        watch: Callable[[str, str], None] = lambda model, outcome: None,
    ) -> None:  # fmt: skip
        super().__init__(folder, settings)
        assert settings.remote is not None
        token = settings.remote_token.get_secret_value() if settings.remote_token else None
        self._waits = settings.remote_fallback == "wait"
        self._named, self._watch = version, watch
        self._breaker = Breaker(settings.remote_failures, settings.remote_retry_s)
        self._proved = False
        self._endpoint = endpoint(settings.remote, settings.remote_timeout_s, token)

    def _ask(self, vectors: Vectors) -> Vectors:
        if self._endpoint is None:  # warming up
            return super()._ask(vectors)
        error: RemoteUnavailableError | None = None
        if self._breaker.allows():
            try:
                found = self._answered(vectors)
            except RemoteUnavailableError as failure:
                error = failure
                self._failed(failure)
            except BaseException:
                self._breaker.failed()
                raise
            else:
                self._breaker.succeeded()
                self._watch(self.name, "remote")
                return found
        if self._waits:
            self._watch(self.name, "refused")
            raise error or RemoteUnavailableError(f"{self._endpoint.address} is left alone after its failures")
        self._watch(self.name, "local")
        return super()._ask(vectors)

    def _failed(self, error: RemoteUnavailableError) -> None:
        self._proved = False  # it may come back with another file
        before = self._breaker.state
        self._breaker.failed()
        if before != self._breaker.state == "open":
            goes = "batches wait" if self._waits else "the local session answers"
            log.warning(f"the endpoint is left alone; {goes}", model=self.name, error=error.told)

    def _answered(self, vectors: Vectors) -> Vectors:
        if not self._proved:
            self._prove()
            self._proved = True
        return self._remote(vectors)

    def _prove(self) -> None:
        """Ask the endpoint what the local session answers, values missing and not. Raises
        RemoteUnavailableError.
        """
        rng = np.random.default_rng(2)
        usual = np.array(self.description.reference or [1.0] * len(self.description.inputs), np.float32)
        sample = (usual * rng.gamma(1.0, 1.0, (_PROOF_ROWS, len(usual)))).astype(np.float32)
        sample[rng.random(sample.shape) < 0.1] = np.nan
        expected, found = super()._ask(sample), self._remote(sample)
        if not np.allclose(found, expected, equal_nan=True, **_TOLERANCE):
            farthest = float(np.nanmax(np.abs(found - expected)))
            raise RemoteUnavailableError(
                f"{self._told()} serves another model: it answers otherwise than the file of {self.version}, "
                f"by up to {farthest:.3g}"
            )

    def _remote(self, vectors: Vectors) -> Vectors:
        assert self._endpoint is not None
        given, told = self.tensors
        call = InferCall(self.name, [Tensor(given.name, vectors)], self._named, outputs=[told.name])
        answer: InferAnswer = self._endpoint.infer(call)
        if answer.version not in ("", self._named):
            raise RemoteUnavailableError(
                f"{self._told()} answered with {answer.version}, not with {self._named}"
            )
        try:
            array: Any = answer.output(told.name).array
        except ProtocolError as error:
            raise RemoteUnavailableError(f"{self._told()}: {error}") from error
        if array.shape != (len(vectors), told.shape[1]) or array.dtype.kind != "f":
            raise RemoteUnavailableError(f"{self._told()} answered {array.dtype} {list(array.shape)}")
        found: Vectors = array if array.dtype == np.float32 else array.astype(np.float32)
        return found

    def _told(self) -> str:
        assert self._endpoint is not None
        return f"{self._endpoint.address} ({self.name})"
