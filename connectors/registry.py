"""The schema registry, through Confluent's API (Confluent, Apicurio, Karapace, Redpanda).

The difference that matters: a schema id the registry does not know is poison (UndecodableError, dead letter); a
registry that cannot be reached is retried with backoff and then raises RegistryUnavailableError.
"""

from __future__ import annotations

import json
import random
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Iterable
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

from connectors.settings import RegistrySettings
from schemas.catalogue import Topic, subjects, topic
from schemas.errors import DealerIQError, IncompatibleSchemaError, UndecodableError

__all__ = ["Registry", "RegistryRefusedError", "RegistryUnavailableError"]

Schema = dict[str, Any]

_SCHEMA_NOT_FOUND = 40403
_RETRIED = frozenset((408, 425, 429, 500, 502, 503, 504))


class RegistryUnavailableError(DealerIQError):
    """The registry did not answer in `registry.retry_s`. Nothing is wrong with the message: retry it."""

    remedy = "Check registry.url and that the registry is up; messages wait and none is lost."
    exit_code = 4


class RegistryRefusedError(DealerIQError):
    """The registry answered, and not as a registry that knows us: wrong address, user or rights."""

    remedy = "Check registry.url (it ends where /subjects begins), registry.username and registry.password."
    exit_code = 3


class Registry:
    """A client of one registry; safe to share between threads. Schemas are kept by id: an id never changes."""

    def __init__(self, settings: RegistrySettings) -> None:
        self._settings = settings
        self._base = settings.address
        self._schemas: dict[int, Schema] = {}
        self._lock = threading.Lock()
        self._headers = {"Accept": "application/vnd.schemaregistry.v1+json, application/json"}
        if settings.username is not None:
            secret = settings.password.get_secret_value() if settings.password else ""
            self._headers["Authorization"] = (
                "Basic " + b64encode(f"{settings.username}:{secret}".encode()).decode()
            )
        self._context = settings.ssl_context() if self._base.startswith("https") else None

    def schema(self, schema_id: int) -> Schema:
        """Return the schema with this id, asking once.

        Raises UndecodableError when the registry does not know it, RegistryUnavailableError,
        RegistryRefusedError.
        """
        found = self._schemas.get(schema_id)
        if found is not None:
            return found
        status, answer = self._ask("GET", f"/schemas/ids/{schema_id}")
        if status == 404:
            raise UndecodableError(f"the schema registry does not know schema id {schema_id}")
        try:
            parsed = json.loads(answer["schema"])
        except (KeyError, TypeError, ValueError):
            raise UndecodableError(f"schema id {schema_id} is not an Avro schema") from None
        if not isinstance(parsed, dict):
            raise UndecodableError(f"schema id {schema_id} is not an Avro record")
        with self._lock:
            self._schemas[schema_id] = parsed
        return parsed

    def register_all(self, topics: Iterable[Topic | str] | None = None) -> dict[str, int]:
        """Register every schema of the topics (all by default), compatibility set; return subject -> schema id.

        Safe to repeat: a schema that is there keeps its id. Raises IncompatibleSchemaError with the registry's
        reasons.
        """
        from concurrent.futures import ThreadPoolExecutor

        names = None if topics is None else {each if isinstance(each, str) else each.name for each in topics}
        for name in names or ():
            topic(name)
        work = [(s, schema, t.compatibility) for s, schema, t in subjects() if names is None or t.name in names]
        with ThreadPoolExecutor(4, thread_name_prefix="register") as pool:
            ids = list(pool.map(lambda each: self.register(*each), work))
        return {subject: schema_id for (subject, _, _), schema_id in zip(work, ids, strict=True)}

    def register(self, subject: str, schema: Schema, compatibility: str) -> int:
        """Register one schema under a subject, its compatibility set; return its id."""
        path = f"/subjects/{quote(subject, safe='')}"
        body = {"schema": json.dumps(schema), "schemaType": "AVRO"}
        status, answer = self._ask("POST", path, body)
        if status == 200 and "id" in answer:
            return self._keep(int(answer["id"]), schema)
        config = f"/config/{quote(subject, safe='')}"
        early, _ = self._ask("PUT", config, {"compatibility": compatibility})
        status, answer = self._ask("POST", f"{path}/versions", body)
        if status in (409, 422):
            raise IncompatibleSchemaError(
                f"the registry refuses {subject}: {answer.get('message', 'no reason given')}"
            )
        if "id" not in answer:
            raise RegistryRefusedError(
                f"registering {subject} at {self._base} was answered with {status}: {answer}"
            )
        if early != 200:  # some registries know a subject's rules only once it has a version
            self._ask("PUT", config, {"compatibility": compatibility})
        return self._keep(int(answer["id"]), schema)

    def compatibility(self, subject: str) -> str | None:
        """Return a subject's compatibility level; None when the subject has none of its own."""
        status, answer = self._ask("GET", f"/config/{quote(subject, safe='')}")
        return None if status == 404 else answer.get("compatibilityLevel") or answer.get("compatibility")

    def subjects(self) -> list[str]:
        """Return the names of all subjects, sorted."""
        return sorted(self._ask("GET", "/subjects")[1])

    def _keep(self, schema_id: int, schema: Schema) -> int:
        with self._lock:
            self._schemas.setdefault(schema_id, schema)
        return schema_id

    def _ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Ask, again with growing waits while the registry is down; return (status, answer) below 500."""
        data = None if body is None else json.dumps(body).encode()
        headers = self._headers | ({"Content-Type": "application/json"} if data else {})
        end = time.monotonic() + self._settings.retry_s
        wait = 0.1
        while True:
            try:
                request = Request(self._base + path, data, headers, method=method)
                with urlopen(request, timeout=self._settings.timeout_s, context=self._context) as reply:
                    return reply.status, json.loads(reply.read() or b"{}")
            except HTTPError as error:
                with error:
                    answer = _json(error.read())
                reason = f"status {error.code}"
                if error.code not in _RETRIED:
                    return error.code, self._understood(error.code, answer)
            except (URLError, HTTPException, OSError, ValueError) as error:
                if isinstance(error, URLError) and isinstance(error.reason, ssl.SSLCertVerificationError):
                    raise RegistryRefusedError(
                        f"the certificate of {self._base} is not trusted: {error.reason.verify_message}",
                        remedy="Set registry.ssl_ca_location to the PEM file of its authority.",
                    ) from error
                reason = str(getattr(error, "reason", error)) or type(error).__name__
            if time.monotonic() + wait > end:
                raise RegistryUnavailableError(f"the schema registry at {self._base} does not answer: {reason}")
            time.sleep(wait * random.uniform(0.5, 1.0))
            wait = min(wait * 2, 5.0)

    def _understood(self, status: int, answer: Any) -> Any:
        """A 404 without a registry's error code comes from something else that answers there: not poison."""
        if status in (401, 403) or (isinstance(answer, dict) and "error_code" in answer) is False:
            raise RegistryRefusedError(
                f"{self._base} answers {status}, and not as a schema registry that knows us"
            )
        return answer


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None
