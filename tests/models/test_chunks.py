"""Chunks: whole, in order, where they say they are, and no others touched by an edit."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.embedding import OWNERS, NoTextError, Owner, fingerprint, mark_of, split, whole_fingerprint
from models.embedding.chunks import chunk_document, chunk_text

SENTENCES = [
    "The battery is returned with its invoice.",
    "Who pays the freight? We do, within 30 days!",
    "Größe und Gewicht stehen auf dem Etikett.",
    "Do not open the case, as acid may leak.",
    "A claim names the part, the vehicle and the mileage at which it failed.",
]


def paragraph(rng: random.Random, sentences: int) -> str:
    return " ".join(rng.choice(SENTENCES) + f" ({rng.randrange(10**6)})" for _ in range(sentences))


def manual(seed: int, paragraphs: int = 12) -> list[str]:
    rng = random.Random(seed)
    blocks = []
    for number in range(paragraphs):
        if number % 4 == 0:
            blocks.append(f"## Part {number // 4}")
        blocks.append(paragraph(rng, rng.choice([1, 2, 8, 9, 10, 40])))
    return blocks


def squeezed(text: str) -> str:
    return " ".join(text.split())


def test_every_word_of_a_document_is_in_a_chunk_where_the_chunk_says():
    text = "\n\n".join(manual(1))
    chunks = chunk_document("document/1", "Manual", text)
    assert [each.number for each in chunks] == list(range(len(chunks)))
    for each in chunks:
        assert each.text.endswith(squeezed(text[each.start : each.end]))
        assert each.end - each.start <= 900
    covered = bytearray(len(text))
    for each in chunks:
        covered[each.start : each.end] = b"x" * (each.end - each.start)
    left = "".join(letter for letter, seen in zip(text, covered, strict=True) if not seen)
    assert squeezed(left.replace("## Part", "")).split() == ["0", "1", "2"]


def test_a_chunk_says_which_document_and_heading_it_is_of():
    chunks = chunk_document(
        "document/1", "Returns", "# Tyres\n\nWithin 30 days.\n\nBatteries\n=========\n\nAlways."
    )
    assert [each.text for each in chunks] == ["Returns, Tyres: Within 30 days.", "Returns, Batteries: Always."]


@pytest.mark.parametrize("seed", range(5))
def test_an_edited_paragraph_changes_its_own_chunks_only(seed):
    blocks = manual(seed)
    before = {each.id for each in chunk_document("document/1", "M", "\n\n".join(blocks))}
    long = [at for at, block in enumerate(blocks) if len(block) >= 300]
    at = random.Random(seed).choice(long)
    blocks[at] = "A new sentence stands in front. " + blocks[at]
    after = chunk_document("document/1", "M", "\n\n".join(blocks))
    text = "\n\n".join(blocks)
    start = text.index(blocks[at])
    outside = [each for each in after if each.end <= start or each.start >= start + len(blocks[at])]
    assert outside
    assert all(each.id in before for each in outside)
    assert any(each.id not in before for each in after)


def test_a_paragraph_that_moves_keeps_its_vector():
    blocks = [paragraph(random.Random(each), 9) for each in range(4)]
    there = {each.id for each in chunk_document("document/1", "M", "\n\n".join(blocks))}
    moved = chunk_document("document/1", "M", "\n\n".join([blocks[3], *blocks[:3]]))
    assert {each.id for each in moved} == there


def test_what_is_said_twice_has_two_chunks_and_another_owner_has_others():
    block = paragraph(random.Random(3), 9)
    chunks = chunk_document("document/1", "", f"{block}\n\n{block}")
    assert len({each.id for each in chunks}) == len(chunks)
    assert chunks[0].text == chunks[-1].text or len(chunks) > 2
    assert not {each.id for each in chunks} & {each.id for each in chunk_document("document/2", "", block)}


@settings(max_examples=80, deadline=None)
@given(st.text(max_size=3_000))
def test_any_text_is_chunked_or_refused(text):
    try:
        chunks = chunk_document("document/1", "t", text)
    except NoTextError:
        return
    assert chunks
    for each in chunks:
        assert 0 <= each.start < each.end <= len(text)
        assert any(map(str.isalnum, each.text))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no text"),
        (" \n\t ", "no text"),
        ("?!… — ", "no text"),
        ("ab" + "\x00\x01" * 50, "control characters"),
        ("# Only\n\n## Headings", "headings and no text"),
    ],
)
def test_what_is_no_text_is_refused(text, told):
    with pytest.raises(NoTextError, match=told):
        chunk_document("document/1", "Title", text)


def test_a_document_of_20_000_tokens_is_whole():
    text = "\n\n".join(paragraph(random.Random(each), 10) for each in range(160))
    assert len(text.split()) > 12_000
    chunks = chunk_document("document/1", "Long", text)
    assert len(chunks) >= 120
    assert all(len(each.text) < 1_100 for each in chunks)


def test_a_product_says_each_thing_once():
    record = {
        "product_id": "1",
        "name": "Bananas 40 Lb",
        "category": "PRODUCE",
        "subcategory": "TROPICAL FRUIT",
        "product_type": "BANANAS",
        "brand": "National",
        "package_size": "40 LB",
        "price": 2.0,
        "deleted": False,
    }
    (chunk,) = split("products", "1", record)
    assert chunk.text == "Bananas 40 Lb, Tropical fruit, Produce, National"
    assert split("products", "1", record | {"price": 3.0}) == [chunk]
    assert split("products", "1", record | {"deleted": True}) == []


def test_fingerprints_change_with_text_and_encoder_and_not_with_order():
    assert fingerprint("a", "e@1") != fingerprint("a", "e@2") != fingerprint("b", "e@2")
    assert whole_fingerprint(["a", "b"], "e@1") == whole_fingerprint(["b", "a"], "e@1")
    assert str(Owner("product", "1")) == "product/1"
    assert chunk_text("product/1", " a\n b ")[0].text == "a b"


@pytest.mark.parametrize("topic", OWNERS)
def test_chunks_follow_from_what_is_read_alone(topic):
    name = {"products": "product_id", "documents": "document_id"}[topic]
    record = dict.fromkeys(OWNERS[topic].reads, "Some text") | {name: "1", "deleted": False}
    assert split(topic, "1", record | {"unread": "x"}) == split(topic, "1", record)


def test_a_mark_is_of_what_is_said_of_the_encoder_and_of_the_topic():
    marks = [
        mark_of("products", b"said", "e@1"),
        mark_of("products", b"Said", "e@1"),
        mark_of("products", b"said", "e@2"),
        mark_of("documents", b"said", "e@1"),
    ]
    assert len(set(marks)) == 4
    assert mark_of("products", b"said", "e@1") == marks[0]
