from __future__ import annotations

import dataclasses
from uuid import uuid4

import pytest
from confluent_kafka import KafkaException

from connectors.dead_letters import counts, dead_letters, redrive
from connectors.kafka import (
    KafkaUnavailableError,
    MessageTooLargeError,
    PartitionMismatchError,
    consumer,
    dead_letter,
    ensure_topics,
    partition_counts,
    producer,
)
from connectors.settings import KafkaSettings
from schemas.catalogue import CATALOGUE, topic
from schemas.envelope import headers
from schemas.errors import ContractError


def read(settings, name, count, timeout=120.0):
    reader = consumer(settings, f"test-{uuid4().hex}")
    reader.subscribe([name])
    found = []
    try:
        while len(found) < count:
            message = reader.poll(timeout)
            assert message is not None, f"{len(found)} of {count} messages of {name}"
            assert message.error() is None
            found.append(message)
        return found
    finally:
        reader.close()


def test_secrets_and_certificates_reach_every_client(tmp_path):
    authority = tmp_path / "ca.pem"
    authority.write_text("-----BEGIN CERTIFICATE-----\n")
    settings = KafkaSettings(
        bootstrap="k:1", security_protocol="SASL_SSL", sasl_mechanism="SCRAM-SHA-512", sasl_username="u",
        sasl_password='p"w', ssl_ca_location=str(authority),
    )  # fmt: skip
    assert settings.client_config()["sasl.password"] == 'p"w'
    assert settings.client_config()["ssl.ca.pem"] == authority.read_text()
    flink = settings.flink_properties()
    assert 'password="p\\"w"' in flink["sasl.jaas.config"]
    assert flink["ssl.truststore.certificates"] == authority.read_text()
    assert 'p"w' not in repr(settings)


def test_no_broker_is_one_sentence():
    with pytest.raises(KafkaUnavailableError, match=r"no broker answers at 127\.0\.0\.1:9"):
        partition_counts(KafkaSettings(bootstrap="127.0.0.1:9"), timeout_s=0.3)


def test_a_large_message_is_refused_with_the_limit():
    writer = producer(KafkaSettings(bootstrap="127.0.0.1:9"), log_level=0)
    with pytest.raises(
        MessageTooLargeError, match=r"5,000,000 bytes is too large for orders, which takes 1,048,576"
    ):
        writer.produce("orders", b"x" * 5_000_000)


@pytest.mark.services
def test_topics_are_created_as_declared(stack):
    ensure_topics(stack.kafka)
    assert ensure_topics(stack.kafka) == []
    found = partition_counts(stack.kafka)
    assert {each.name: each.partitions for each in CATALOGUE.values()}.items() <= found.items()


@pytest.mark.services
def test_other_partitions_than_declared_are_refused(stack):
    odd = dataclasses.replace(topic("orders"), name=f"odd-{uuid4().hex}", partitions=2)
    ensure_topics(stack.kafka, [odd])
    with pytest.raises(PartitionMismatchError, match=f"{odd.name} has 2 and 3 declared"):
        ensure_topics(stack.kafka, [dataclasses.replace(odd, partitions=3)])


@pytest.mark.services
def test_a_setting_gives_a_topic_other_partitions(stack):
    each = dataclasses.replace(topic("orders"), name=f"wide-{uuid4().hex}")
    wide = stack.kafka.model_copy(update={"partitions": {each.name: 7}})
    ensure_topics(wide, [each])
    assert partition_counts(stack.kafka)[each.name] == 7
    assert ensure_topics(wide, [each]) == []
    with pytest.raises(PartitionMismatchError, match=f"{each.name} has 7 and 4 declared"):
        ensure_topics(stack.kafka, [each])


@pytest.mark.services
def test_more_replicas_than_brokers_is_said(stack):
    each = dataclasses.replace(topic("orders"), name=f"safe-{uuid4().hex}")
    with pytest.raises(ContractError, match="cannot be created") as refused:
        ensure_topics(stack.kafka.model_copy(update={"replication": 3}), [each])
    assert "kafka.replication" in refused.value.remedy


@pytest.mark.services
def test_a_dead_letter_keeps_everything_and_is_redriven_once(stack):
    name = "inventory"
    ensure_topics(stack.kafka, [name, f"{name}.dlq"])
    writer = producer(stack.kafka)
    mark = uuid4().hex.encode()
    for number in range(3):
        writer.produce(name, b"\xff" + mark, key=b"d%d" % number, headers=headers("e", name, "test", 0, "d"))
    writer.flush(20)
    mine = [each for each in read(stack.kafka, name, 3) if mark in (each.value() or b"")]
    for each in mine:
        dead_letter(writer, each, ValueError("not readable"), "test")
    writer.flush(20)

    letters = [each for each in dead_letters(stack.kafka, name) if mark in (each.value or b"")]
    assert [(each.error, each.stage, each.source_topic) for each in letters] == [
        ("not readable", "test", name)
    ] * 3
    assert {(each.source_partition, each.source_offset) for each in letters} == {
        (each.partition(), each.offset()) for each in mine
    }
    assert all(dict(each.headers)["ce_id"] == b"e" for each in letters)
    assert counts(stack.kafka)[name][1] >= 3

    assert redrive(stack.kafka, name) >= 3
    assert redrive(stack.kafka, name) == 0
    again = [each for each in read(stack.kafka, name, 6) if mark in (each.value() or b"")]
    assert len(again) == 6
    assert not any(header.startswith("dlq_") for each in again for header, _ in each.headers())
    assert list(dead_letters(stack.kafka, name, redriven=False)) == []


@pytest.mark.services
def test_a_tombstone_and_a_5_mb_message_can_be_dead_letters(stack):
    ensure_topics(stack.kafka, ["documents", "documents.dlq"])
    writer = producer(stack.kafka)

    class Message:
        def __init__(self, value):
            self.bytes = value

        topic = staticmethod(lambda: "documents")
        partition = staticmethod(lambda: 0)
        offset = staticmethod(lambda: 7)
        key = staticmethod(lambda: None)
        headers = staticmethod(lambda: None)

        def value(self):
            return self.bytes

    failed = []
    for value in (None, b"x" * 5_000_000):
        dead_letter(
            writer, Message(value), "why", "test", on_delivery=lambda error, _: error and failed.append(error)
        )
    assert writer.flush(30) == 0
    assert failed == []
    sizes = {len(each.value or b"") for each in dead_letters(stack.kafka, "documents")}
    assert {0, 5_000_000} <= sizes


@pytest.mark.services
def test_what_the_broker_itself_refuses_is_told_to_its_producer(stack):
    """Producers of others know nothing of our limits: the broker refuses, and nothing is half written."""
    from confluent_kafka import Producer as ForeignProducer

    from connectors.errors import MessageRefusedError, translated

    ensure_topics(stack.kafka, ["orders", "products"])
    foreign = ForeignProducer(stack.kafka.client_config() | {"message.max.bytes": 10_000_000})
    refused = {}
    for name, key, size in (("orders", b"d", 5_000_000), ("products", None, 10)):
        foreign.produce(
            name, b"x" * size, key, on_delivery=lambda error, message: refused.update({message.topic(): error})
        )
    assert foreign.flush(60) == 0
    kinds = {name: type(translated(KafkaException(error))) for name, error in refused.items()}
    assert kinds == {"orders": MessageRefusedError, "products": MessageRefusedError}
