"""A writer whose place was taken knows it, whichever of its calls hears of it first."""

import time
import uuid
from collections.abc import Callable

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from connectors.kafka import Producer, producer
from connectors.transactions import is_fenced, persistently
from dealeriq.settings import Settings


@pytest.fixture(scope="module")
def topic(stack: Settings) -> str:
    name = f"t{uuid.uuid4().hex[:8]}"
    admin = AdminClient(stack.kafka.client_config())
    admin.create_topics([NewTopic(name, 1, 1)])[name].result(30)
    return name


def _writer(stack: Settings, name: str) -> Producer:
    opened = producer(stack.kafka, transactional_id=name, linger_ms=0)
    persistently(lambda: opened.init_transactions(30))
    return opened


def _until_refused(call: Callable[[], object]) -> KafkaException:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            call()
        except KafkaException as error:
            return error
        time.sleep(0.01)
    raise AssertionError("it writes on beside the newer one")


@pytest.mark.services
@pytest.mark.parametrize("hears", ["produce", "commit"])
def test_a_writer_learns_that_a_newer_one_took_its_place(stack: Settings, topic: str, hears: str) -> None:
    name = uuid.uuid4().hex
    first = _writer(stack, name)
    first.begin_transaction()
    if hears == "commit":
        first.produce(topic, b"1")
        assert first.flush(30) == 0
    _writer(stack, name)
    if hears == "produce":
        error = _until_refused(lambda: first.produce(topic, b"2"))
        assert error.args[0].code() == KafkaError._FATAL  # by itself it does not tell why
    else:
        error = _until_refused(lambda: first.commit_transaction(30))
    assert is_fenced(first, error)


@pytest.mark.services
def test_another_trouble_of_a_writer_is_not_taken_for_a_newer_one(stack: Settings, topic: str) -> None:
    writer = _writer(stack, uuid.uuid4().hex)
    error = _until_refused(lambda: writer.produce(topic, b"outside of a transaction"))
    assert error.args[0].code() == KafkaError._STATE
    assert not is_fenced(writer, error)


def test_only_what_may_be_repeated_is() -> None:
    called: list[int] = []

    def fails(error: KafkaError) -> None:
        called.append(1)
        raise KafkaException(error)

    with pytest.raises(KafkaException):
        persistently(lambda: fails(KafkaError(KafkaError.COORDINATOR_LOAD_IN_PROGRESS, "", False, True)), 3)
    assert len(called) == 3
    with pytest.raises(KafkaException):
        persistently(lambda: fails(KafkaError(KafkaError._FENCED)), 3)
    assert len(called) == 4
