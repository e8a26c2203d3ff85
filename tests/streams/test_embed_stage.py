"""The embed stage on a real Redis: the topic ends as the chunks of each owner's newest event, encoded once."""

import random
import uuid
from collections import Counter
from contextlib import closing

import numpy as np
import pytest
from redis import Redis

from connectors.kafka import ensure_topics, producer
from connectors.registry import Registry
from connectors.whole import WholeTopic
from models.embedding import NoTextError, Owner, marked, split
from models.text import Encoder, EncoderUnavailableError
from schemas.catalogue import topic
from schemas.codec import Decoder
from schemas.codec import Encoder as Encode
from schemas.ids import event_id
from schemas.validate import problems
from streams.agents.embed import EmbedStage
from streams.agents.embedded import Embedded
from streams.agents.settings import AgentSettings
from streams.agents.stage import Event, Message
from streams.agents.worker import BatchWorker
from streams.metrics import StageMeters

pytestmark = pytest.mark.services

TEXTS = [
    "Turn it on.",
    "# A\n\nOne.\n\n# B\n\nTwo.",
    "# A\n\nOne.\n\n# C\n\nThree.",
    "# B\n\nTwo.\n\n# A\n\nOne.",
    " ",
    "\x00\x01 ab \x02\x03",
]


class Counting(Encoder):
    """Vectors made of a hash, and a count of what was encoded."""

    name, version, dimension, max_tokens = "counting", "1", 4, 100

    def __init__(self, version="1"):
        self.version, self.texts = version, Counter()

    def encode(self, batch):
        self.texts.update(batch)
        seeds = [int(event_id(text), 16) for text in batch]
        found = np.array([np.random.default_rng(seed).standard_normal(4) for seed in seeds], dtype=np.float32)
        return found.reshape(-1, 4)


@pytest.fixture
def redis(stack):
    return Redis.from_url(stack.redis.address)


def document(identity, text, time_ms, **more):
    return {
        "document_id": identity,
        "title": "Manual",
        "text": text,
        "kind": "manual",
        "product_id": None,
        "dealer_id": None,
        "deleted": False,
        "event_time": time_ms,
    } | more


ENCODE = Encode("documents", 7).encode
DECODER = Decoder.of_topic("documents", lambda _: topic("documents").schema)


DECODERS = {"documents": DECODER}


def message(offset, key, record):
    value = None if record is None else ENCODE(record)
    return Message("documents", 0, offset, 1_500_000_000_000, key.encode(), value, ())


def event(offset, key, record, time_ms=1_500_000_000_000):
    """As the worker hands it over."""
    mark = ""
    if record is not None:
        time_ms = record["event_time"]
        mark, _ = marked("documents", DECODER, ENCODE(record), Counting().identity)
    return Event("documents", 0, offset, key, record, time_ms, 100, mark)


class Topic:
    """What is in the embeddings topic: the newest record of each key."""

    def __init__(self):
        self.records = {}

    def take(self, outcomes):
        for outcome in outcomes:
            for each in outcome.derived:
                self.records.pop(each.key, None)
                if each.record is not None:
                    assert problems("embeddings", each.record) == []
                    assert each.key == each.record["chunk_id"]
                    self.records[each.key] = each.record


def newest(events):
    """Each owner's record that counts, folded apart from the stage."""
    found = {}
    for each in events:
        known = found.get(each.key)
        if each.record is None:
            found.pop(each.key, None)
        elif known is None or each.time_ms >= known["event_time"]:
            try:
                split("documents", each.key, each.record)
            except NoTextError:
                continue
            found[each.key] = each.record
    return found


@pytest.mark.parametrize("seed", range(40))
def test_any_batches_repeats_and_crashes_end_as_the_newest_events_chunks(redis, seed):
    rng, mark = random.Random(seed), uuid.uuid4().hex[:8]
    keys = [f"{mark}-{number}" for number in range(3)]
    events = []
    for offset in range(rng.randrange(1, 30)):
        key = rng.choice(keys)
        time_ms, deleted = 1_500_000_000_000 + rng.randrange(6), rng.random() < 0.1
        record = document(key, rng.choice(TEXTS), time_ms, deleted=deleted)
        events.append(event(offset, key, None if rng.random() < 0.15 else record))
    topic, stage = Topic(), EmbedStage(Counting(), Embedded(redis))
    done = 0
    while done < len(events):
        batch = events[done : done + rng.randrange(1, 6)]
        outcomes = stage.derive(batch)
        assert len(outcomes) == len(batch)
        if rng.random() < 0.3:
            if rng.random() < 0.5:
                topic.take(outcomes)
            continue  # killed: before or after Kafka had what follows, and before that was remembered
        topic.take(outcomes)
        done += len(batch)
        kept = [(e, o) for e, o in zip(batch, outcomes, strict=True) if o.refused is None]
        stage.after([e for e, _ in kept], [o for _, o in kept])
    expected = {
        chunk.id: chunk.text
        for key, record in newest(events).items()
        for chunk in split("documents", key, record)
    }
    assert {key: record["text"] for key, record in topic.records.items()} == expected
    for record in topic.records.values():
        vector = Counting().encode([record["text"]])[0]
        assert np.array_equal(np.frombuffer(record["vector"], "<f4"), vector)
    # Every record once more: nothing is encoded, nothing follows.
    last = newest(events)
    encoded = Counting()
    again = EmbedStage(encoded, Embedded(redis)).derive(
        [event(100 + at, key, record) for at, (key, record) in enumerate(last.items())]
    )
    assert not encoded.texts
    assert [each.derived for each in again] == [()] * len(last) or all(not each.derived for each in again)
    redis.delete(*(f"dealeriq:embedded:document/{key}" for key in keys))


def through(stage, *events):
    outcomes = stage.derive(events)
    stage.after(events, outcomes)
    return outcomes


def test_only_what_changed_is_encoded_and_what_moved_is_not(redis):
    key, encoder = uuid.uuid4().hex, Counting()
    stage = EmbedStage(encoder, Embedded(redis))
    through(stage, event(0, key, document(key, TEXTS[1], 1)))
    assert sum(encoder.texts.values()) == 2
    (moved,) = through(stage, event(1, key, document(key, TEXTS[3], 2)))
    assert (moved.name, moved.derived, sum(encoder.texts.values())) == ("unchanged", [], 2)
    (edited,) = through(stage, event(2, key, document(key, TEXTS[2], 3)))
    assert edited.name == "encoded"
    assert [each.record is None for each in edited.derived] == [False, True]
    assert sum(encoder.texts.values()) == 3
    (late,) = through(stage, event(3, key, document(key, TEXTS[0], 2)))
    assert (late.name, late.derived) == ("superseded", ())
    (gone,) = through(stage, event(4, key, None))
    assert gone.name == "deleted"
    assert [each.record for each in gone.derived] == [None, None]


def test_another_encoder_makes_every_chunk_new(redis):
    key = uuid.uuid4().hex
    through(EmbedStage(Counting("1"), Embedded(redis)), event(0, key, document(key, TEXTS[1], 1)))
    newer = Counting("2")
    (outcome,) = through(EmbedStage(newer, Embedded(redis)), event(1, key, document(key, TEXTS[1], 1)))
    assert sum(newer.texts.values()) == 2
    assert {each.record["encoder"] for each in outcome.derived} == {"counting@2"}


def test_a_key_that_is_not_the_records_own_is_refused_alone(redis):
    key = uuid.uuid4().hex
    stage = EmbedStage(Counting(), Embedded(redis))
    wrong, right = stage.derive(
        [event(0, key, document("another", "x", 1)), event(1, key, document(key, "right", 1))]
    )
    assert "document_id is 'another'" in wrong.refused
    assert right.name == "encoded"


def test_an_encoder_that_fails_half_way_takes_nothing_along(stack, redis):
    class Failing(Counting):
        away = 2

        def encode(self, batch):
            found = super().encode(batch)
            if self.away:
                self.away -= 1
                raise EncoderUnavailableError("the endpoint does not answer")
            if any("Too much for it." in text for text in batch):
                raise RuntimeError("out of memory")
            return found

    ensure_topics(stack.kafka, ["documents.dlq", "embeddings"])
    registry = Registry(stack.registry)
    encode = Encode("documents", registry.register_all(["documents"])["documents-value"]).encode
    keys = [uuid.uuid4().hex for _ in range(5)]
    texts = ["One.", "Two.", "Too much for it.", "Three.", "Four."]
    now_ms = 1_500_000_000_000
    batch = [
        Message("documents", 0, at, now_ms, key.encode(), encode(document(key, text, now_ms)), ())
        for at, (key, text) in enumerate(zip(keys, texts, strict=True))
    ]
    stage = EmbedStage(Failing(), Embedded(redis))
    patience = AgentSettings(retry_first_s=0.05, retry_most_s=0.1)
    meters = StageMeters(f"embed-{keys[0]}")

    def held(name):
        with closing(WholeTopic(stack.kafka, name, "test")) as whole:
            return list(whole.records())

    def embedded():
        values = {each.key(): each.value() for each in held("embeddings")}
        read = Decoder.of_topic("embeddings", registry.schema).decode
        return {read(value)["subject_id"] for value in values.values() if value is not None} & set(keys)

    with closing(BatchWorker(stage, registry, producer(stack.kafka), patience, meters)) as worker:
        worker.process(batch)
        assert embedded() == {keys[0], keys[1], keys[3], keys[4]}
        gone = [Message("documents", 0, 9 + at, now_ms, each.key, None, ()) for at, each in enumerate(batch)]
        worker.process(gone)  # others read this topic, too
        assert embedded() == set()
    (dead,) = [each for each in held("documents.dlq") if each.key() == keys[2].encode()]
    assert dead.value() == batch[2].value
    assert dict(dead.headers())["dlq_error"] == b"out of memory"


def test_what_says_the_same_is_encoded_once_and_belongs_to_each(redis):
    encoder, mark = Counting(), uuid.uuid4().hex[:8]
    stage = EmbedStage(encoder, Embedded(redis))
    keys = [f"{mark}-{number}" for number in range(3)]
    outcomes = through(stage, *(event(at, key, document(key, TEXTS[0], 1)) for at, key in enumerate(keys)))
    assert encoder.texts.total() == 1
    records = [each.record for outcome in outcomes for each in outcome.derived]
    assert [each["subject_id"] for each in records] == keys
    assert len({each["chunk_id"] for each in records}) == 3
    assert len({each["vector"] for each in records}) == 1


def sort(stage, *records, busy=()):
    """What the stage says of documents, in order: whether each is known."""
    messages = [message(at, each["document_id"], each) for at, each in enumerate(records)]
    left, known, newest = stage.recogniser.sort(messages, DECODERS, busy)
    assert sorted([*left, *known], key=lambda each: each.offset) == messages
    assert newest == max((records[each.offset]["event_time"] for each in known), default=None)
    return [each in known for each in messages]


def test_a_record_that_says_what_the_one_before_said_is_known_and_its_time_counts(redis):
    stage, key, first = EmbedStage(Counting(), Embedded(redis)), uuid.uuid4().hex, 1_500_000_000_000
    one = [document(key, TEXTS[1], first + at) for at in range(9)]
    two = [document(key, TEXTS[2], first + at) for at in range(9)]
    assert sort(stage, one[0]) == [False]  # never seen
    through(stage, event(0, key, one[0]))
    assert sort(stage, one[0], one[2], one[2]) == [True] * 3
    assert Embedded(redis).read([Owner("document", key)])[0].time_ms == first + 2
    (late,) = through(stage, event(3, key, two[1]))
    assert late.name == "superseded"
    assert sort(stage, one[1], one[3]) == [False, False]  # an older one, and what comes after it is read too
    assert sort(stage, two[4], one[5]) == [False, False]  # it says again what was said before something else
    assert sort(stage, one[5], two[6], one[7]) == [True, False, False]
    assert sort(stage, one[8], busy={("documents", key)}) == [False]
    assert Embedded(redis).read([Owner("document", key)])[0].time_ms == first + 5
    through(stage, event(9, key, None))
    assert sort(stage, one[8]) == [False]
    assert sort(EmbedStage(Counting("2"), Embedded(redis)), one[8]) == [False]


def test_what_may_be_on_its_way_since_a_crash_is_read(redis):
    embedded, key, first = Embedded(redis), uuid.uuid4().hex, 1_500_000_000_000
    stage, owner = EmbedStage(Counting(), embedded), Owner("document", key)
    through(stage, event(0, key, document(key, TEXTS[0], first)))
    (held,) = embedded.read([owner])
    embedded.write([(owner, held._replace(maybe=["0" * 32]))])  # as a crash leaves it
    assert sort(stage, document(key, TEXTS[0], first + 1)) == [False]
    through(stage, event(1, key, document(key, TEXTS[0], first + 1)))
    assert sort(stage, document(key, TEXTS[0], first + 2)) == [True]


def test_a_deleted_one_that_comes_again_is_known_to_have_nothing(redis):
    stage, key, first = EmbedStage(Counting(), Embedded(redis)), uuid.uuid4().hex, 1_500_000_000_000
    through(stage, event(0, key, document(key, TEXTS[0], first)))
    through(stage, event(1, key, document(key, TEXTS[0], first + 1, deleted=True)))
    assert sort(stage, document(key, TEXTS[0], first + 2, deleted=True)) == [True]
    assert sort(stage, document(key, TEXTS[0], first + 3)) == [False]


def test_what_cannot_be_told_from_its_bytes_is_read(redis):
    stage, key, first = EmbedStage(Counting(), Embedded(redis)), uuid.uuid4().hex, 1_500_000_000_000
    old = document(key, TEXTS[0], 1)  # its time has another length
    through(stage, event(0, key, old))
    assert sort(stage, old) == [False]
    wrong = message(0, key, document(key, TEXTS[0], first))
    wrong.value = b"not a record"
    assert stage.recogniser.sort([wrong, message(1, key, None)], DECODERS, ()).known == []


def test_what_is_recognised_while_other_parts_are_on_their_way_ends_as_the_newest_events_do(redis):
    assert sum(recognised(redis, seed) for seed in range(60)) > 60


def recognised(redis, seed):
    """Run an agent by hand, and kill it here and there; return how many records it recognised."""
    rng, mark, first = random.Random(seed), uuid.uuid4().hex[:8], 1_500_000_000_000
    keys, records = [f"{mark}-{number}" for number in range(3)], []
    for at in range(rng.randrange(5, 40)):
        key, time_ms = rng.choice(keys), first + at + rng.choice((0, 0, -2))
        record = document(key, rng.choice(TEXTS[:3]), time_ms, deleted=rng.random() < 0.05)
        records.append((key, None if rng.random() < 0.05 else record))
    events = [event(at, *each) for at, each in enumerate(records)]
    topic, stage, known_ones = Topic(), EmbedStage(Counting(), Embedded(redis)), 0
    done, read, on_the_way = 0, 0, None  # position; how far is read; a part that is begun, and where it ends

    def finish():
        """See the part on its way through; whether it is."""
        nonlocal done, read, on_the_way
        if on_the_way is not None:
            part, begun, end = on_the_way
            outcomes = begun.outcomes(begun.derive())
            if dies := rng.random() < 0.1:
                read, on_the_way = done, None
            if not dies or rng.random() < 0.5:
                topic.take(outcomes)
            if dies:
                return False
            kept = [(e, o) for e, o in zip(part, outcomes, strict=True) if o.refused is None]
            stage.after([e for e, _ in kept], [o for _, o in kept])
            done, on_the_way = end, None
        return True

    while done < len(events):
        if rng.random() < 0.15:  # killed
            read, on_the_way = done, None
            continue
        batch = range(read, min(read + rng.randrange(1, 6), len(events)))
        busy = {("documents", each.key) for each in on_the_way[0]} if on_the_way else set()
        left, known, _ = stage.recogniser.sort([message(at, *records[at]) for at in batch], DECODERS, busy)
        known_ones += len(known)
        wait = rng.random() < 0.5 or any((each.topic, each.key.decode()) in busy for each in left)
        if wait and not finish():
            continue
        part = [events[each.offset] for each in left]
        begun = stage.begin(part)
        if not finish():
            continue
        read, on_the_way = batch.stop, (part, begun, batch.stop)
        if read == len(events):
            finish()
    expected = {
        chunk.id: chunk.text
        for key, record in newest(events).items()
        for chunk in split("documents", key, record)
    }
    assert {key: record["text"] for key, record in topic.records.items()} == expected
    last = newest(events)
    for key in keys:
        (held,) = Embedded(redis).read([Owner("document", key)])
        assert (held and held.time_ms) == (last[key]["event_time"] if key in last else None)
    redis.delete(*(f"dealeriq:embedded:document/{key}" for key in keys))
    return known_ones
