"""The protocol's gRPC messages: classes made from the compiled definition, and calls and answers as them.

They live in a descriptor pool of their own, so that a process may hold another package's copy of the protocol,
too (`tritonclient`'s, for one, has the same names).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from models.oip.call import InferAnswer, InferCall
from models.oip.tensors import ProtocolError, Tensor, of_bytes, of_values, shape_of

__all__ = ["METHODS", "SERVICE", "answer_of", "call_of", "message_of_answer", "message_of_call", "messages"]

SERVICE = "inference.GRPCInferenceService"
METHODS = ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer")
_CONTENTS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents",
}  # fmt: skip


@cache
def messages() -> dict[str, Any]:
    """Return the message classes by name, without their package."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    raw = Path(__file__).with_name("open_inference.binpb").read_bytes()
    pool = descriptor_pool.DescriptorPool()
    found: dict[str, Any] = {}
    for file in descriptor_pb2.FileDescriptorSet.FromString(raw).file:
        pool.Add(file)
        for name in pool.FindFileByName(file.name).message_types_by_name:
            descriptor = pool.FindMessageTypeByName(f"{file.package}.{name}")
            found[name] = message_factory.GetMessageClass(descriptor)
    return found


def call_of(message: Any) -> InferCall:
    """Return the call that a ModelInferRequest is. Raises ProtocolError."""
    tensors = _tensors(message.inputs, message.raw_input_contents)
    if not tensors:
        raise ProtocolError("the request has no inputs")
    outputs = [each.name for each in message.outputs]
    return InferCall(message.model_name, tensors, message.model_version, message.id, outputs)


def message_of_call(call: InferCall) -> Any:
    """Return a call as a ModelInferRequest, its tensors as bytes."""
    made = messages()["ModelInferRequest"](
        model_name=call.model, model_version=call.version, id=call.id,
        outputs=[{"name": name} for name in call.outputs],
    )  # fmt: skip
    _fill(call.inputs, made.inputs, made.raw_input_contents)
    return made


def answer_of(message: Any) -> InferAnswer:
    """Return the answer that a ModelInferResponse is. Raises ProtocolError."""
    tensors = _tensors(message.outputs, message.raw_output_contents)
    return InferAnswer(message.model_name, message.model_version, tensors, message.id)


def message_of_answer(answer: InferAnswer) -> Any:
    """Return an answer as a ModelInferResponse, its tensors as bytes."""
    made = messages()["ModelInferResponse"](model_name=answer.model, model_version=answer.version, id=answer.id)
    _fill(answer.outputs, made.outputs, made.raw_output_contents)
    return made


def _tensors(described: Any, raw: Any) -> list[Tensor]:
    if raw and len(raw) != len(described):
        raise ProtocolError(f"{len(described)} tensors are described, and {len(raw)} raw contents came")
    found = []
    for at, each in enumerate(described):
        shape = shape_of(each.name, list(each.shape))
        if raw:
            if each.HasField("contents"):
                raise ProtocolError(f"{each.name} has contents beside the raw ones")
            found.append(of_bytes(each.name, each.datatype, shape, raw[at]))
            continue
        field = _CONTENTS.get(each.datatype)
        if field is None:
            raise ProtocolError(f"{each.name}: {each.datatype!r} must come as raw contents, or not at all")
        found.append(of_values(each.name, each.datatype, shape, list(getattr(each.contents, field))))
    return found


def _fill(tensors: Any, described: Any, raw: Any) -> None:
    for tensor in tensors:
        described.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.array.shape)
        raw.append(np.ascontiguousarray(tensor.array).tobytes())
