"""The protocol's bodies and messages: what is written is read again, and what is wrong is refused in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from tritonclient.grpc import service_pb2

from models.oip.call import InferAnswer, InferCall
from models.oip.compile import compiled
from models.oip.messages import answer_of, call_of, message_of_answer, message_of_call, messages
from models.oip.rest import Body, read_answer, read_call, write_answer, write_call
from models.oip.tensors import DATATYPES, ProtocolError, Tensor

ARRAYS = st.sampled_from(list(DATATYPES.values())).flatmap(
    lambda dtype: npst.arrays(dtype, npst.array_shapes(max_dims=3, max_side=4, min_side=0))
)


def told(body: Body) -> tuple[bytes, str | None]:
    return body.content, None if body.header_length is None else str(body.header_length)


def same(one: Any, other: Any) -> None:
    assert [each.name for each in one] == [each.name for each in other]
    for left, right in zip(one, other, strict=True):
        assert left.array.dtype == right.array.dtype
        np.testing.assert_array_equal(left.array, right.array)


@given(st.lists(ARRAYS, min_size=1, max_size=3), st.text(max_size=5))
def test_what_is_written_is_read_again(arrays: list[Any], identity: str) -> None:
    tensors = [Tensor(f"t{at}", each) for at, each in enumerate(arrays)]
    call = InferCall("m", tensors, "v", identity, ["out"])
    read = read_call("m", "v", *told(write_call(call)))
    same(read.call.inputs, tensors)
    assert (read.call.id, list(read.call.outputs), read.binary) == (identity, ["out"], {"out": True})
    over_grpc = call_of(messages()["ModelInferRequest"].FromString(message_of_call(call).SerializeToString()))
    same(over_grpc.inputs, tensors)
    assert (over_grpc.model, over_grpc.version, over_grpc.id) == ("m", "v", identity)
    answer = InferAnswer("m", "v", tensors, identity)
    same(answer_of(message_of_answer(answer)).outputs, tensors)


@given(npst.arrays(np.float32, (3, 2)), st.booleans(), st.booleans())
def test_an_answer_comes_as_it_was_asked_for(array: Any, binary: bool, named: bool) -> None:
    asked: dict[str, Any] = {"inputs": [{"name": "x", "shape": [1], "datatype": "INT8", "data": [1]}]}
    if named:
        asked["outputs"] = [{"name": "y", "parameters": {"binary_data": binary}}]
    else:
        asked["parameters"] = {"binary_data_output": binary}
    body = write_answer(
        InferAnswer("m", "v", [Tensor("y", array)]), read_call("m", "", json.dumps(asked).encode(), None)
    )
    assert (body.header_length is not None) == binary
    expected = array if binary else np.where(np.isfinite(array), array, np.nan)
    np.testing.assert_array_equal(read_answer("m", *told(body)).output("y").array, expected)


def test_values_may_be_nested_missing_or_not_finite() -> None:
    rows = b'{"inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","data":[[1,null],[NaN,-Infinity]]}]}'
    (tensor,) = read_call("m", "", rows, None).call.inputs
    np.testing.assert_array_equal(tensor.array, np.array([[1, np.nan], [np.nan, -np.inf]], np.float32))


@pytest.mark.parametrize(
    ("body", "length", "words"),
    [
        (b"", None, "not JSON"),
        (b"[]", None, "must be a JSON object"),
        (b"[" * 100_000, None, "not JSON"),
        (b"{}", None, "inputs must be a list"),
        (b'{"inputs":[]}', None, "no inputs"),
        (b'{"inputs":[{"shape":[1]}]}', None, "needs a name"),
        (b'{"inputs":[{"name":"x","shape":[-1],"datatype":"FP32","data":[1]}]}', None, "whole numbers"),
        (b'{"inputs":[{"name":"x","shape":[true],"datatype":"FP32","data":[1]}]}', None, "whole numbers"),
        (b'{"inputs":[{"name":"x","shape":[1],"datatype":"BYTES","data":["a"]}]}', None, "is none of BOOL"),
        (b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32"}]}', None, "neither data nor"),
        (b'{"inputs":[{"name":"x","shape":[3],"datatype":"FP32","data":[1]}]}', None, "takes 3 values"),
        (b'{"inputs":[{"name":"x","shape":[1],"datatype":"INT8","data":[300]}]}', None, "not all INT8"),
        (b'{"inputs":[{"name":"x","shape":[2],"datatype":"FP32","data":[1,"a"]}]}', None, "not all FP32"),
        (b'{"inputs":[{"name":"x","shape":[2],"datatype":"FP32","data":[[1],[2,3]]}]}', None, "not all FP32"),
        (b'{"inputs":[{"name":"x","shape":[1],"datatype":"INT8","data":[1]}],"id":7}', None, "id must be"),
        (b'{"inputs":[{"name":"x","shape":[1],"datatype":"INT8","data":[1]}],"outputs":[1]}', None, "a name"),
        (b"{}", "3", "has 2 bytes"),
        (b"{}", "x", "has 2 bytes"),
        (b"{}", "99999999999999999999", "has 2 bytes"),
        (b'{"inputs":[]}ab', "13", "2 bytes follow"),
    ],
)
def test_what_is_wrong_is_refused_in_words(body: bytes, length: str | None, words: str) -> None:
    with pytest.raises(ProtocolError, match=words):
        read_call("m", "", body, length)


@pytest.mark.parametrize("size", [3, 5, -4, 4.0, "4", True])
def test_bytes_that_do_not_fit_the_shape_are_refused(size: Any) -> None:
    head = {
        "inputs": [
            {"name": "x", "shape": [1], "datatype": "FP32", "parameters": {"binary_data_size": size}},
        ]
    }
    raw = json.dumps(head).encode()
    with pytest.raises(ProtocolError):
        read_call("m", "", raw + b"abcd", str(len(raw)))


@given(st.binary(max_size=60), st.none() | st.text(max_size=4))
def test_no_body_does_more_than_be_refused(body: bytes, length: str | None) -> None:
    with pytest.raises(ProtocolError):
        read_call("m", "", body, length)


def test_messages_with_contents_twice_or_too_few_are_refused() -> None:
    made = messages()["ModelInferRequest"](
        inputs=[{"name": "x", "datatype": "FP32", "shape": [1], "contents": {"fp32_contents": [1.0]}}],
    )
    (tensor,) = call_of(made).inputs
    assert tensor.array.tolist() == [1.0]
    made.raw_input_contents.append(b"abcd")
    with pytest.raises(ProtocolError, match="beside the raw"):
        call_of(made)
    made.raw_input_contents.append(b"abcd")
    with pytest.raises(ProtocolError, match="2 raw contents came"):
        call_of(made)
    with pytest.raises(ProtocolError, match="no inputs"):
        call_of(messages()["ModelInferRequest"]())
    half = messages()["ModelInferRequest"](inputs=[{"name": "x", "datatype": "FP16", "shape": [1]}])
    with pytest.raises(ProtocolError, match="raw contents"):
        call_of(half)


def test_the_compiled_definition_is_that_of_the_text() -> None:
    raw = (Path(__file__).parents[2] / "models/oip/open_inference.binpb").read_bytes()
    assert FileDescriptorSet.FromString(raw) == FileDescriptorSet.FromString(compiled())


def test_names_and_numbers_are_those_of_the_reference_client() -> None:
    for name, ours in messages().items():
        theirs = getattr(service_pb2, name).DESCRIPTOR
        for field in ours.DESCRIPTOR.fields:
            other = theirs.fields_by_name[field.name]
            assert (other.number, other.type, other.is_repeated) == (
                field.number,
                field.type,
                field.is_repeated,
            ), field.name
