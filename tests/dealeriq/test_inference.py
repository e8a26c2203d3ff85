"""The inference process, asked by Triton's own clients: real Kafka, the lifecycle's log, ONNX files."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

from dealeriq.settings import Settings
from tests.dealeriq.inference_world import World, vectors
from tests.streams.scoring_model import INPUTS

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]


@pytest.fixture
def world(stack: Settings, tmp_path: Path) -> Iterator[World]:
    made = World(stack, tmp_path)
    yield made
    if made.process is not None:
        made.stop(signal.SIGKILL)


def asked(kind: Any, x: Any, **how: Any) -> dict[str, Any]:
    tensor = kind.InferInput("input", list(x.shape), "FP32")
    tensor.set_data_from_numpy(x, **how)
    outputs = [kind.InferRequestedOutput("output", **({"binary_data": how["binary_data"]} if how else {}))]
    return {"inputs": [tensor], "outputs": outputs}


def test_tritons_clients_are_answered_as_the_file_answers(world: World) -> None:
    world.start()
    world.decide(world.v1, "champion")
    world.decide(world.v2, "challenger")
    world.decide(world.v3, "registered")
    rest, rpc = triton_http.InferenceServerClient(world.url), triton_grpc.InferenceServerClient(world.grpc)
    world.until(lambda: all(world.ready(rest, name) for name in ("", "challenger", world.v3)))
    for client in (rest, rpc):
        assert client.is_server_live()
        assert client.is_server_ready()
        assert world.ready(client, world.v3)
        assert not world.ready(client, "nothing")
    server = rest.get_server_metadata()
    assert (server["name"], server["extensions"]) == ("dealeriq", ["binary_tensor_data"])
    assert rpc.get_server_metadata().version == server["version"]
    about = rest.get_model_metadata(world.model)
    assert about["versions"] == [world.v1, world.v2, world.v3]
    assert about["inputs"][0]["shape"] == [-1, len(INPUTS)]
    assert about["inputs"][0]["parameters"]["columns"].split(",") == [each.name for each in INPUTS]
    assert about["parameters"]["version"] == world.v1
    over = rpc.get_model_metadata(world.model, world.v2)
    assert (over.platform, list(over.versions)) == (about["platform"], [world.v2])
    assert [(t.name, t.datatype, list(t.shape)) for t in (*over.inputs, *over.outputs)] == [
        ("input", "FP32", [-1, len(INPUTS)]), ("output", "FP32", [-1, 2]),
    ]  # fmt: skip

    small, large = vectors(3), vectors(5_000, 1)
    cases = [
        ("", world.v1), ("champion", world.v1), ("challenger", world.v2), (world.v2, world.v2),
        (world.v3, world.v3),
    ]  # fmt: skip
    for name, version in cases:
        for x in (small, large):
            expected = world.sessions[version].run(x)
            ways = [
                (rest, asked(triton_http, x, binary_data=True)), (rpc, asked(triton_grpc, x)),
                (rest, asked(triton_http, x, binary_data=True) | {"request_compression_algorithm": "gzip"}),
            ]  # fmt: skip
            if x is small:
                ways.append((rest, asked(triton_http, x, binary_data=False)))
            for client, how in ways:
                answer = client.infer(world.model, model_version=name, request_id="7", **how)
                np.testing.assert_array_equal(answer.as_numpy("output"), expected)
                told = answer.get_response()
                of = told if isinstance(told, dict) else {"model_version": told.model_version, "id": told.id}
                assert (of["model_version"], of["id"]) == (version, "7")
    empty = rest.infer(world.model, **asked(triton_http, vectors(0), binary_data=True)).as_numpy("output")
    assert empty.shape == (0, 2)
    refused(world, rest, rpc)
    exported(world)
    rest.close()
    rpc.close()
    assert world.stop() == 0


def exported(world: World) -> None:
    """The command shows what it would write, then writes it, and says so."""
    root = world.root / "repository"

    def export(*more: str) -> Any:
        command = [sys.executable, "-m", "dealeriq", "models", "export", "triton", str(root), "--json", *more]
        done = subprocess.run(
            command, env=os.environ | world.stack.environment(), capture_output=True, text=True, timeout=120
        )
        return json.loads(done.stdout) if done.returncode == 0 else done.stderr

    shown = export("--model", world.model)
    assert not root.exists()
    done = export("--model", world.model, "--execute")
    assert (shown["done"], done["done"], shown["models"]) == (False, True, done["models"])
    (row,) = done["models"]
    assert (row["version"], row["number"]) == (world.v1, 1)
    assert all(Path(each).is_file() for each in row["files"])
    assert "has no champion" in export("--model", "nothing")


def refused(world: World, rest: Any, rpc: Any) -> None:
    """Each error as the protocol says it, in words, over both; and the process goes on."""
    x = vectors(2)
    wrong = [
        ({"model_name": "nothing"}, x, "404", "NOT_FOUND", "no model is called 'nothing'"),
        ({"model_version": "nothing"}, x, "404", "NOT_FOUND", "has no version 'nothing'"),
        ({}, x[:, :-1], "400", "INVALID_ARGUMENT", r"takes the shape \[-1, 6\], and got \[2, 5\]"),
        ({}, x[0], "400", "INVALID_ARGUMENT", r"takes the shape \[-1, 6\], and got \[6\]"),
    ]  # fmt: skip
    for more, given, status, code, words in wrong:
        for client, kind in ((rest, triton_http), (rpc, triton_grpc)):
            how = asked(kind, np.ascontiguousarray(given))
            with pytest.raises(InferenceServerException, match=words) as caught:
                client.infer(**{"model_name": world.model, **how, **more})
            assert caught.value.status() in (status, f"StatusCode.{code}")
    for kind, client in ((triton_http, rest), (triton_grpc, rpc)):
        double = kind.InferInput("input", [1, 6], "FP64").set_data_from_numpy(np.zeros((1, 6)))
        with pytest.raises(InferenceServerException, match="takes FP32 for 'input', and got FP64"):
            client.infer(world.model, [double])
        other = kind.InferInput("x", [1, 6], "FP32").set_data_from_numpy(np.zeros((1, 6), np.float32))
        with pytest.raises(InferenceServerException, match=r"the input 'input' alone, and got \['x'\]"):
            client.infer(world.model, [other])
        right = asked(kind, x)["inputs"]
        with pytest.raises(InferenceServerException, match="no output 'y'"):
            client.infer(world.model, right, outputs=[kind.InferRequestedOutput("y")])
    base = f"http://{world.url}/v2"
    infer = f"{base}/models/{world.model}/infer"
    large = b" " * 16_777_217
    for status, answer in [
        (400, httpx.post(infer, content=b"{")),
        (413, httpx.post(infer, content=large)),
        (413, httpx.post(infer, content=gzip.compress(large), headers={"content-encoding": "gzip"})),
        (400, httpx.post(infer, content=b"no gzip", headers={"content-encoding": "gzip"})),
        (400, httpx.post(infer, content=gzip.compress(b"{}")[:-9], headers={"content-encoding": "gzip"})),
        (415, httpx.post(infer, content=b"{}", headers={"content-encoding": "br"})),
        (405, httpx.get(infer)),
        (405, httpx.post(base)),
        (404, httpx.get(f"{base}/nothing")),
        (404, httpx.get(f"{base}/models/{world.model}/versions")),
    ]:
        assert answer.status_code == status, answer.text
        assert list(answer.json()) == ["error"]
    assert httpx.head(f"{base}/health/live").status_code == 200
    assert rest.is_server_live()


def test_versions_are_swapped_between_two_calls(world: World) -> None:
    world.decide(world.v1, "champion")
    world.start()
    x, stop = vectors(3), threading.Event()
    expected = {version: session.run(x) for version, session in world.sessions.items()}
    seen: list[list[str]] = [[], []]
    errors: list[BaseException] = []

    def ask(at: int) -> None:
        try:
            kind, url = ((triton_http, world.url), (triton_grpc, world.grpc))[at]
            client, how = kind.InferenceServerClient(url), asked(kind, x)
            while not stop.is_set():
                answer = client.infer(world.model, **how)
                told = answer.get_response()
                version = told["model_version"] if isinstance(told, dict) else told.model_version
                np.testing.assert_array_equal(answer.as_numpy("output"), expected[version])
                seen[at].append(version)
            client.close()
        except BaseException as error:
            errors.append(error)

    rest = triton_http.InferenceServerClient(world.url)
    world.until(lambda: world.ready(rest))
    threads = [threading.Thread(target=ask, args=(at,)) for at in (0, 1)]
    for each in threads:
        each.start()
    world.until(lambda: all(seen))
    for version in (world.v2, world.v3, world.v1):
        world.decide(version, "champion")
        world.until(lambda version=version: errors or all(each[-1] == version for each in seen))
    stop.set()
    for each in threads:
        each.join(60)
    assert not errors, errors
    order = [world.v1, world.v2, world.v3, world.v1]
    for each in seen:  # never back, never anything else
        assert [v for at, v in enumerate(each) if at == 0 or each[at - 1] != v] == order
    # A version whose file is cut short takes nobody's place.
    broken = world.folders[world.v2] / "model.onnx"
    broken.write_bytes(broken.read_bytes()[:-10])
    assert world.stop(signal.SIGINT) == 0
    world.start()
    rest = triton_http.InferenceServerClient(world.url)
    world.until(lambda: world.ready(rest))
    world.decide(world.v2, "champion")
    world.until(lambda: "cannot be served" in (world.root / "inference.log").read_text())
    told = rest.infer(world.model, **asked(triton_http, x)).get_response()
    assert told["model_version"] == world.v1
    with pytest.raises(InferenceServerException, match="cut short"):
        rest.infer(world.model, model_version=world.v2, **asked(triton_http, x))
    rest.close()


def test_a_token_is_asked_for(world: World) -> None:
    world.decide(world.v1, "champion")
    world.start(DEALERIQ_HTTP__TOKEN="s3cret")
    rest, rpc = triton_http.InferenceServerClient(world.url), triton_grpc.InferenceServerClient(world.grpc)
    assert rest.is_server_live()
    assert rpc.is_server_live()
    bearer = {"authorization": "Bearer s3cret"}
    world.until(lambda: rest.is_model_ready(world.model, headers=bearer))
    assert rpc.is_model_ready(world.model, headers=bearer)
    assert not rest.is_model_ready(world.model)
    for client, kind in ((rest, triton_http), (rpc, triton_grpc)):
        how = asked(kind, vectors(2))
        with pytest.raises(InferenceServerException, match=r"setting http\.token"):
            client.infer(world.model, **how, headers={"authorization": "Bearer wrong"})
        client.infer(world.model, **how, headers=dict(bearer))  # one of them adds to it
    answer = httpx.get(f"http://{world.url}/v2/models/{world.model}")
    assert (answer.status_code, json.loads(answer.text).keys()) == (401, {"error"})
    rest.close()
    rpc.close()
