"""The catalogue, its schemas and what is generated from them agree."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from schemas.asyncapi import document
from schemas.bounds import bounds
from schemas.catalogue import CATALOGUE, subjects, topic
from schemas.compatibility import check
from schemas.ddl import columns, flink_type, key_columns
from schemas.errors import ContractError, UnknownTopicError
from schemas.pages import generated

DOCS = Path(__file__).parents[2] / "docs"
INBOUND = {"orders", "chats", "feedback", "products", "documents", "dealers", "inventory", "promotions"}


def test_the_declared_topics_are_there():
    assert {each.name for each in CATALOGUE.values() if each.inbound} == INBOUND
    derived = {
        "chats.enriched",
        "labels",
        "scores",
        "insights",
        "embeddings",
        "retraining.requests",
        "model.lifecycle",
    }
    assert derived <= CATALOGUE.keys()


@pytest.mark.parametrize("name", [each.name for each in CATALOGUE.values() if not each.is_dead_letters])
def test_a_topic_is_whole(name):
    declared = topic(name)
    fields = {field["name"] for field in (declared.schema or {})["fields"]}
    assert set(declared.key) <= fields
    assert declared.description
    assert declared.writers
    assert declared.readers
    assert declared.dead_letters in CATALOGUE
    assert all(field.get("doc") for field in declared.schema["fields"]) or name.startswith("tiles.")
    assert [column for column, _ in columns(name)] == [each.field for each in bounds(name)]


def test_an_unknown_topic_names_a_near_one():
    with pytest.raises(UnknownTopicError, match="did you mean orders"):
        topic("order")


def test_every_schema_reads_its_recorded_history():
    # Tile schemas are generated: tests/features/test_compiler.py holds them.
    assert [str(each) for each in check()] == []


def test_generated_documents_are_written():
    for name, text in generated().items():
        assert (DOCS / name).read_text(encoding="utf-8") == text, f"run `dealeriq schema docs`: {name} is old"


def test_asyncapi_references_resolve():
    whole = json.loads(json.dumps(document()))

    def walk(part):
        if isinstance(part, dict):
            if "$ref" in part:
                target = whole
                for step in part["$ref"].removeprefix("#/").split("/"):
                    target = target[step]
            for each in part.values():
                walk(each)
        elif isinstance(part, list):
            for each in part:
                walk(each)

    walk(whole)
    assert {each["address"] for each in whole["channels"].values()} == set(CATALOGUE)
    assert whole["asyncapi"] == "3.0.0"


def test_flink_columns():
    found = dict(columns("orders"))
    assert found["event_time"] == "TIMESTAMP(3) NOT NULL"
    assert found["customer_id"] == "STRING"
    assert found["quantity"] == "BIGINT NOT NULL"
    assert key_columns("orders") == [("dealer_id", "STRING NOT NULL")]
    assert flink_type(["null", {"type": "array", "items": "long"}]) == "ARRAY<BIGINT NOT NULL>"
    with pytest.raises(ContractError):
        columns("orders.dlq")


def test_subjects_are_named_after_topics():
    assert {"orders-value", "chats.enriched-value"} <= {subject for subject, _, _ in subjects()}


def test_hot_path_imports_are_light():
    code = (
        "import sys, schemas.codec, schemas.validate, schemas.ids, schemas.envelope, connectors.kafka, "
        "connectors.registry; "
        "print([m for m in ('torch','feast','mlflow','pandas','pyarrow') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
