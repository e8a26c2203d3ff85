from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from uuid import uuid4

import pytest

from connectors.registry import Registry, RegistryRefusedError, RegistryUnavailableError
from connectors.settings import AddressNotSetError, RegistrySettings
from schemas.catalogue import subjects, topic
from schemas.codec import Decoder, Encoder
from schemas.errors import IncompatibleSchemaError, UndecodableError


@pytest.fixture
def answers():
    """A web server that is no registry, or one that stumbles: (status, body) in order, the last one for
    ever.
    """
    waiting = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            status, body = waiting.pop(0) if len(waiting) > 1 else waiting[0]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body if isinstance(body, bytes) else json.dumps(body).encode())

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield waiting, RegistrySettings(url=f"http://127.0.0.1:{server.server_port}/", retry_s=2)
    server.shutdown()
    server.server_close()


def test_a_registry_that_stumbles_is_asked_again(answers):
    waiting, settings = answers
    waiting += [(503, b""), (500, b"oops"), (200, {"schema": json.dumps(topic("orders").schema)})]
    assert Registry(settings).schema(3)["name"] == "Order"


def test_an_address_that_is_no_registry_is_not_poison(answers):
    waiting, settings = answers
    waiting += [(404, b"<html>not here</html>")]
    with pytest.raises(RegistryRefusedError, match="not as a schema registry"):
        Registry(settings).schema(3)


def test_a_schema_that_is_not_avro_is_poison(answers):
    waiting, settings = answers
    waiting += [(200, {"schema": 'syntax = "proto3";', "schemaType": "PROTOBUF"})]
    with pytest.raises(UndecodableError, match="not an Avro schema"):
        Registry(settings).schema(3)


def test_a_registry_that_is_down_is_worth_a_retry():
    with pytest.raises(RegistryUnavailableError, match="does not answer") as caught:
        Registry(RegistrySettings(url="http://127.0.0.1:9", retry_s=0.3)).schema(1)
    assert not isinstance(caught.value, UndecodableError)


def test_an_unset_address_says_so():
    with pytest.raises(AddressNotSetError, match=r"registry\.url"):
        Registry(RegistrySettings())


@pytest.mark.services
def test_every_schema_registers_once_with_its_compatibility(stack):
    registry = Registry(stack.registry)
    ids = registry.register_all()
    assert ids.keys() == {subject for subject, _, _ in subjects()}
    assert Registry(stack.registry).register_all() == ids
    assert registry.compatibility("orders-value") == "BACKWARD_TRANSITIVE"
    assert Registry(stack.registry).schema(ids["orders-value"])["name"] == "Order"


@pytest.mark.services
def test_an_id_that_the_registry_does_not_know_is_poison(stack):
    registry = Registry(stack.registry)
    with pytest.raises(UndecodableError, match="does not know schema id 99999"):
        Decoder.of_topic("orders", registry.schema).decode(b"\0\0\x01\x86\x9fxx")


@pytest.mark.services
def test_the_registry_refuses_what_the_offline_check_refuses(stack):
    registry, subject = Registry(stack.registry), f"t{uuid4().hex}-value"
    one = {"type": "record", "name": "R", "fields": [{"name": "a", "type": "long"}]}
    registry.register(subject, one, "BACKWARD_TRANSITIVE")
    with pytest.raises(IncompatibleSchemaError, match=subject):
        registry.register(subject, one | {"fields": [{"name": "b", "type": "string"}]}, "BACKWARD_TRANSITIVE")


@pytest.mark.services
def test_confluents_own_deserializer_reads_what_we_write(stack):
    from confluent_kafka.schema_registry import SchemaRegistryClient
    from confluent_kafka.schema_registry.avro import AvroDeserializer
    from confluent_kafka.serialization import MessageField, SerializationContext

    ids = Registry(stack.registry).register_all(["dealers"])
    data = Encoder("dealers", ids["dealers-value"]).encode(
        {"dealer_id": "1", "name": "One", "region": None, "event_time": 1_483_229_520_000}
    )
    read = AvroDeserializer(SchemaRegistryClient({"url": stack.registry.url}))
    found = read(data, SerializationContext("dealers", MessageField.VALUE))
    assert found["name"] == "One"
    assert found["event_time"].isoformat() == "2017-01-01T00:12:00+00:00"
