"""Readings are judged on messages that are not among the examples."""

import pytest

from models.text import packaged_encoder
from models.text.examples import FOLDER
from streams.agents.reading import ExamplesError, Reader

INTENTS = [
    ("could you check what happened to my shipment, it was due yesterday", "order_status"),
    ("the box was crushed and two bottles were broken", "delivery_complaint"),
    ("which battery belongs in this alarm clock?", "product_question"),
    ("can you do something about the price if we take the whole lot?", "price_negotiation"),
    ("the pump failed after half a year, does the guarantee still apply?", "warranty"),
    ("do you still have the blue jacket on the shelf?", "stock_enquiry"),
    ("I'd like my money back, I'm sending the shoes back", "return"),
    ("please don't send it, I changed my mind and want to cancel", "cancel_order"),
    ("we'd like to order twenty crates of milk", "place_order"),
    ("I was billed twice for the same order", "invoice_payment"),
    ("can I book the car in for an inspection next week?", "service_appointment"),
    ("are you open on Sundays?", "opening_hours"),
    ("this is the worst customer service I have ever had", "complaint"),
    ("you've been a great help, thanks a lot", "praise"),
    ("hey there, how's it going?", "small_talk"),
    ("ok bye, see you", "goodbye"),
    ("the mitochondria is the powerhouse of the cell", "other"),
    ("xkcd qwerty 12345", "other"),
]
GLAD = ["I absolutely love my new bike, thank you!", "awesome, works like a charm", "you guys are the best"]
PLAIN = ["what time is it", "the part number is 12-33", "I have two dogs"]
ANGRY = [
    "it broke on the first day, very disappointing",
    "horrible experience, I will never buy from you again",
    "I'm really angry about this",
]
URGENT = [
    "we need the spare part right away, the line is standing still",
    "call me ASAP",
    "please reply today, it's urgent",
]
CALM = ["take your time", "no rush at all", "what's your favourite movie?"]


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader(packaged_encoder())


def test_most_unseen_messages_get_their_intent(reader):
    readings = reader.read([text for text, _ in INTENTS])
    wrong = [
        (text, wanted, each.intent)
        for (text, wanted), each in zip(INTENTS, readings, strict=True)
        if each.intent != wanted
    ]
    assert len(wrong) <= 3, wrong
    assert {wanted for _, wanted in INTENTS} <= set(reader.intents)


def test_sentiment_tells_glad_from_plain_from_angry(reader):
    glad, plain, angry = ([each.sentiment for each in reader.read(texts)] for texts in (GLAD, PLAIN, ANGRY))
    assert min(glad) > 0.2 > max(plain)
    assert max(angry) < -0.3 < min(plain)
    assert all(-1 <= each <= 1 for each in glad + plain + angry)


def test_urgency_tells_now_from_whenever(reader):
    urgent, calm = ([each.urgency for each in reader.read(texts)] for texts in (URGENT, CALM))
    assert min(urgent) > 0.5 > 0.3 > max(calm)
    assert all(0 <= each <= 1 for each in urgent + calm)


def test_any_text_has_a_reading_within_bounds(reader):
    for each in reader.read(["", " ", "?" * 5_000, "\U0001f697" * 50, "a\x00b", "word " * 3_000]):
        assert -1 <= each.intent_score <= 1
        assert -1 <= each.sentiment <= 1
        assert 0 <= each.urgency <= 1


def test_a_text_that_comes_again_is_not_encoded_again(reader):
    fresh = Reader(reader.encoder, remembered=2)
    first = fresh.read(["hello", "hello", "good day"])
    assert (fresh.misses, fresh.hits) == (2, 1)
    assert first[0] == first[1] == fresh.read(["hello"])[0]
    fresh.read(["one more", "and another"])
    assert len(fresh._readings) == 2
    assert Reader(reader.encoder, remembered=0).read(["hello"])[0].intent == first[0].intent


def test_the_version_follows_the_examples(reader, tmp_path):
    for name in ("intents.toml", "tone.toml"):
        (tmp_path / name).write_bytes((FOLDER / name).read_bytes())
    assert Reader(reader.encoder, folder=tmp_path).version == reader.version
    with (tmp_path / "intents.toml").open("a") as file:
        file.write('newsletter = ["Please take me off the mailing list."]\n')
    other = Reader(reader.encoder, folder=tmp_path)
    assert other.version != reader.version
    assert other.read(["unsubscribe me from your mailing list"])[0].intent == "newsletter"
    (tmp_path / "tone.toml").write_text("")
    with pytest.raises(ExamplesError, match="sentiment"):
        Reader(reader.encoder, folder=tmp_path)
