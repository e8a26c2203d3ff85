"""Bodies of the REST protocol, with the extension for binary tensors.

A body is JSON, or (header `Inference-Header-Content-Length`: that many bytes of) JSON and then the bytes of
those tensors whose parameters say `binary_data_size`, one behind the other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from models.oip.call import InferAnswer, InferCall
from models.oip.tensors import ProtocolError, Tensor, of_bytes, of_values, shape_of

__all__ = ["HEADER_LENGTH", "Body", "ParsedCall", "read_answer", "read_call", "write_answer", "write_call"]

HEADER_LENGTH = "inference-header-content-length"


@dataclass(frozen=True, slots=True)
class Body:
    """Bytes to send; `header_length` is None where they are JSON alone."""

    content: bytes
    header_length: int | None = None

    @property
    def content_type(self) -> str:
        """Its media type."""
        return "application/json" if self.header_length is None else "application/octet-stream"


@dataclass(frozen=True, slots=True)
class ParsedCall:
    """A call, and which of the outputs shall come as bytes (`binary_default` for those not named)."""

    call: InferCall
    binary: Mapping[str, bool]
    binary_default: bool


def read_call(model: str, version: str, raw: bytes, header_length: str | None) -> ParsedCall:
    """Read the body of an inference request. Raises ProtocolError."""
    given, rest = _parted(raw, header_length)
    tensors = _tensors(given.get("inputs"), rest, "inputs")
    if not tensors:
        raise ProtocolError("the request has no inputs")
    wanted = given.get("outputs", [])
    if not isinstance(wanted, list) or not all(
        isinstance(e, dict) and isinstance(e.get("name"), str) for e in wanted
    ):
        raise ProtocolError("outputs must be a list of objects with a name")
    binary = {each["name"]: bool(_parameters(each).get("binary_data", False)) for each in wanted}
    identity = given.get("id", "")
    if not isinstance(identity, str):
        raise ProtocolError(f"the id must be a string, and is {identity!r}")
    call = InferCall(model, tensors, version, identity, list(binary))
    return ParsedCall(call, binary, bool(_parameters(given).get("binary_data_output", False)))


def write_answer(answer: InferAnswer, asked: ParsedCall) -> Body:
    """Return the body of an answer to a call. A value that is no number is null in JSON."""
    binary = [asked.binary.get(each.name, asked.binary_default) for each in answer.outputs]
    told: dict[str, Any] = {"model_name": answer.model, "model_version": answer.version}
    if answer.id:
        told["id"] = answer.id
    return _joined(told, "outputs", list(zip(answer.outputs, binary, strict=True)))


def write_call(call: InferCall) -> Body:
    """Return the body of a call, its tensors and those asked for as bytes."""
    told: dict[str, Any] = {"id": call.id} if call.id else {}
    told["outputs"] = [{"name": name, "parameters": {"binary_data": True}} for name in call.outputs]
    return _joined(told, "inputs", [(each, True) for each in call.inputs])


def read_answer(model: str, raw: bytes, header_length: str | None) -> InferAnswer:
    """Read the body of an answer. Raises ProtocolError."""
    given, rest = _parted(raw, header_length)
    return InferAnswer(
        model, str(given.get("model_version", "")), _tensors(given.get("outputs"), rest, "outputs"),
        str(given.get("id", "")),
    )  # fmt: skip


def _parted(raw: bytes, header_length: str | None) -> tuple[dict[str, Any], memoryview]:
    length = len(raw)
    if header_length is not None:
        length = int(header_length) if header_length.isdecimal() and len(header_length) < 12 else -1
        if not 0 <= length <= len(raw):
            raise ProtocolError(
                f"Inference-Header-Content-Length is {header_length[:40]!r}, and the body has {len(raw)} bytes"
            )
    head = raw[:length]
    try:
        try:
            given = orjson.loads(head)
        except orjson.JSONDecodeError:
            given = json.loads(head)  # it takes NaN and Infinity, which some clients write
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"the body is not JSON: {error}") from None
    if not isinstance(given, dict):
        raise ProtocolError("the body must be a JSON object")
    return given, memoryview(raw)[length:]


def _tensors(given: Any, rest: memoryview, what: str) -> list[Tensor]:
    if not isinstance(given, list) or not all(isinstance(each, dict) for each in given):
        raise ProtocolError(f"{what} must be a list of objects")
    found, at = [], 0
    for each in given:
        name = each.get("name")
        if not isinstance(name, str):
            raise ProtocolError(f"each of the {what} needs a name")
        shape = shape_of(name, each.get("shape"))
        size = _parameters(each).get("binary_data_size")
        if size is None:
            if "data" not in each:
                raise ProtocolError(f"{name} has neither data nor the parameter binary_data_size")
            found.append(of_values(name, each.get("datatype"), shape, each["data"]))
            continue
        if type(size) is not int or not 0 <= size <= len(rest) - at:
            raise ProtocolError(f"{name}: binary_data_size is {size!r}, and {len(rest) - at} bytes are left")
        found.append(of_bytes(name, each.get("datatype"), shape, rest[at : at + size]))
        at += size
    if at != len(rest):
        raise ProtocolError(f"{len(rest) - at} bytes follow the last tensor")
    return found


def _parameters(given: Mapping[str, Any]) -> Mapping[str, Any]:
    found = given.get("parameters") or {}
    if not isinstance(found, dict):
        raise ProtocolError("parameters must be an object")
    return found


def _joined(told: dict[str, Any], what: str, tensors: list[tuple[Tensor, bool]]) -> Body:
    parts, described = [], []
    for tensor, binary in tensors:
        about: dict[str, Any] = {
            "name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.array.shape),
        }  # fmt: skip
        flat = np.ascontiguousarray(tensor.array)
        if binary:
            parts.append(flat.tobytes())
            about["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            about["data"] = flat.reshape(-1).tolist()
        described.append(about)
    head = orjson.dumps(told | {what: described})
    if not parts:
        return Body(head)
    return Body(b"".join([head, *parts]), len(head))
