"""Logs of embeddings and of whom they belong to, what they fold to, and an index that dies when told to."""

from collections import defaultdict
from functools import partial

import numpy as np
import pytest

from connectors.vectors import AnyOf, Encoding, IndexUnavailableError, VectorIndex
from models.embedding import NoTextError, Owner, split
from models.embedding.topics import SECOND
from models.search.fields import fields_of
from schemas.catalogue import topic
from schemas.codec import Encoder
from streams.assigned import patiently
from streams.graph.embedding import chunk_of
from streams.metrics import StageMeters
from streams.views.vector_view import VectorView

ENCODER, DIMENSION = "test@1", 4
KINDS = {"text": Encoding(ENCODER, DIMENSION), "graph": Encoding("graph-test", 3)}
TOPICS = ("embeddings", "products", "documents", "inventory", SECOND)
METERS = StageMeters("vector-world")
ENCODERS = {name: Encoder(name, at).encode for at, name in enumerate(TOPICS, 1)}


def fetch(schema_id):
    return topic(TOPICS[schema_id - 1]).schema


class Message:
    """A record as confluent-kafka hands it over."""

    def __init__(self, name, key, record, partition, offset):
        self.name, self.record, self.where = name, record, (name, partition, offset)
        self._key, self._partition, self._offset = key, partition, offset
        self._value = None if record is None else ENCODERS[name](record)

    def topic(self):
        return self.name

    def partition(self):
        return self._partition

    def offset(self):
        return self._offset

    def key(self):
        return self._key.encode()

    def value(self):
        return self._value

    def timestamp(self):
        return (1, 1_700_000_000_000)

    def headers(self):
        return []


class Log:
    """Partitions of messages: a record goes where its key says, behind what is there."""

    def __init__(self):
        self.partitions = defaultdict(list)

    def add(self, name, key, record):
        number = sum(key.encode()) % 2
        log = self.partitions[name, number]
        log.append(Message(name, key, record, number, len(log)))


def product(identity, **more):
    return {
        "product_id": identity,
        "name": f"Thing {identity}",
        "category": "TOOLS",
        "subcategory": None,
        "product_type": None,
        "brand": None,
        "manufacturer_id": None,
        "package_size": None,
        "price": 1.0,
        "deleted": False,
        "event_time": 1_500_000_000_000,
    } | more


def document(identity, **more):
    return {
        "document_id": identity,
        "title": "Manual",
        "text": "Turn it on.",
        "kind": "manual",
        "product_id": None,
        "dealer_id": None,
        "deleted": False,
        "event_time": 1_500_000_000_000,
    } | more


def embedding(owner, chunk, seed=0, **more):
    vector = np.random.default_rng(seed).standard_normal(DIMENSION).astype("<f4")
    return {
        "chunk_id": chunk.id,
        "subject_type": owner.type,
        "subject_id": owner.id,
        "chunk": chunk.number,
        "kind": "text",
        "encoder": ENCODER,
        "dimension": DIMENSION,
        "vector": (vector / np.linalg.norm(vector)).tobytes(),
        "fingerprint": f"f{seed}",
        "text": chunk.text,
        "dealer_id": None,
        "event_time": 1_500_000_000_000,
    } | more


def graph_embedding(owner, seed=0, space="a", **more):
    vector = np.random.default_rng(seed).standard_normal(3).astype("<f4")
    return {
        "chunk_id": chunk_of(owner.type, owner.id),
        "subject_type": owner.type,
        "subject_id": owner.id,
        "chunk": 0,
        "kind": "graph",
        "encoder": f"graph-test@{space}",
        "dimension": 3,
        "vector": (vector / np.linalg.norm(vector)).tobytes(),
        "fingerprint": f"{space}{seed}",
        "text": None,
        "dealer_id": None,
        "event_time": 1_500_000_000_000,
    } | more


def level(dealer, identity, on_hand, time_ms):
    return {
        "event_id": f"{dealer}-{identity}-{time_ms}-{on_hand}",
        "dealer_id": dealer,
        "product_id": identity,
        "on_hand": on_hand,
        "event_time": time_ms,
    }


def random_log(rng, events):
    """A log in which owners come, change, go and come again, and chunks of any of their texts come and go."""
    log = Log()
    texts = ["Turn it on.", "Turn it off.", "# A\n\nOne.\n\n# B\n\nTwo.", "   ", "One.\n\n# B\n\nTwo."]
    for _ in range(events):
        identity = rng.choice("12")
        time_ms = 1_500_000_000_000 + rng.randrange(5)
        name = rng.choice(TOPICS[:-1])
        if name == "inventory":
            dealer = rng.choice("xy")
            log.add(name, dealer, level(dealer, identity, rng.choice([0, 3, 7]), time_ms))
            continue
        if name == "embeddings" and rng.random() < 0.4:
            owner = Owner(rng.choice(["product", "dealer"]), identity)
            record = graph_embedding(owner, rng.randrange(9), space=rng.choice("ab"))
            log.add(name, record["chunk_id"], None if rng.random() < 0.3 else record)
            continue
        if name == "embeddings":
            kind = rng.choice(["products", "documents"])
            make = product if kind == "products" else document
            more = {"name": rng.choice(["Saw", "Axe"])} if kind == "products" else {"text": rng.choice(texts)}
            owner = Owner(kind.removesuffix("s"), identity)
            try:
                chunk = rng.choice(split(kind, identity, make(identity, **more)))
            except NoTextError:
                continue
            gone = rng.random() < 0.3
            log.add(name, chunk.id, None if gone else embedding(owner, chunk, rng.randrange(9)))
            if rng.random() < 0.4:  # another encoder comes and goes in the other home: nothing of ours
                other = None if rng.random() < 0.5 else embedding(owner, chunk, encoder="other@1")
                log.add(SECOND, chunk.id, other)
            continue
        if rng.random() < 0.2:
            log.add(name, identity, None)
            continue
        more = {"event_time": time_ms, "deleted": rng.random() < 0.2}
        if name == "products":
            log.add(
                name,
                identity,
                product(identity, name=rng.choice(["Saw", "Axe"]), price=rng.choice([1.0, 2.0]), **more),
            )
        else:
            log.add(
                name,
                identity,
                document(identity, text=rng.choice(texts), dealer_id=rng.choice([None, "x"]), **more),
            )
    return log


def folded(log):
    """What must be in the index, computed apart from it: chunk id -> (fields, vector)."""
    owners, levels, chunks = {}, {}, {}
    for (name, _), messages in log.partitions.items():
        for message in messages:
            key, record = message.key().decode(), message.record
            if name == SECOND:
                continue
            if name == "embeddings":
                chunks.pop(key, None)
                if record is not None:
                    chunks[key] = record
            elif name == "inventory":
                at = (record["product_id"], record["dealer_id"])
                if at not in levels or levels[at]["event_time"] <= record["event_time"]:
                    levels[at] = record
            elif record is None:
                owners.pop((name, key), None)
            else:
                known = owners.get((name, key))
                if known is not None and record["event_time"] < known["event_time"]:
                    continue
                try:
                    split(name, key, record)
                except NoTextError:
                    continue
                owners[name, key] = record
    found = {}
    for identity, chunk in chunks.items():
        name = chunk["subject_type"] + "s"
        record = owners.get((name, chunk["subject_id"]))
        fields = {} if record is None else fields_of(chunk["subject_type"], record)
        here = [] if record is None or chunk["kind"] != "text" else split(name, chunk["subject_id"], record)
        place = next((each for each in here if each.id == identity), None)
        if place is not None:
            fields |= {"chunk": place.number, "start": place.start, "end": place.end}
        fields |= {"text": chunk["text"]} if chunk["kind"] == "text" else {"encoder": chunk["encoder"]}
        dealer = chunk["subject_type"] == "dealer"
        fields["live"] = str(dealer or (record is not None and not record["deleted"])).lower()
        if chunk["subject_type"] == "product":
            of_it = {d: r["on_hand"] for (p, d), r in levels.items() if p == chunk["subject_id"]}
            if of_it:
                fields["stock"] = sum(of_it.values())
                fields["stocked_by"] = sorted(dealer for dealer, units in of_it.items() if units) or None
        found[identity] = (
            {name: value for name, value in fields.items() if value is not None},
            {chunk["kind"]: np.frombuffer(chunk["vector"], "<f4").round(4).tolist()},
        )
    return found


OWN = ("entry", "owner", "type", "subject_id", "fingerprint", "topic", "offset")


def held(index):
    return {
        each.id: (
            {name: value for name, value in each.fields.items() if name not in OWN},
            {kind: of.round(4).tolist() for kind, of in each.dense.items()},
        )
        for each in index.scan([AnyOf("entry", ["chunk", "graph"])], vectors=True)
    }


class KilledError(Exception):
    pass


class Mortal(VectorIndex):
    """Hands on to a real index, until the given number of writes is over: then the process is dead."""

    def __init__(self, inner, writes):
        self.inner, self.left, self.kinds = inner, writes, inner.kinds

    def _write(self, act, *given):
        if self.left is not None:
            if self.left == 0:
                raise KilledError
            self.left -= 1
        act(*given)

    def put(self, entries):
        self._write(self.inner.put, entries)

    def set_fields(self, changes):
        for identity, fields in changes.items():
            self._write(self.inner.set_fields, {identity: fields})

    def delete(self, ids):
        self._write(self.inner.delete, ids)

    def move(self, position):
        self._write(self.inner.move, position)

    def get(self, ids, *, vectors=False):
        return self.inner.get(ids, vectors=vectors)

    def scan(self, conditions=(), *, vectors=False, batch=1_000):
        return self.inner.scan(conditions, vectors=vectors, batch=batch)

    def near(self, kind, vector, limit, conditions=()):
        return self.inner.near(kind, vector, limit, conditions)

    def matching(self, query, limit, conditions=()):
        return self.inner.matching(query, limit, conditions)

    def count(self, conditions=()):
        return self.inner.count(conditions)

    def positions(self):
        return self.inner.positions()

    def close(self):
        self.inner.close()


class Shaky(VectorIndex):
    """Hands on to a real index, as a server on a bad line: some calls do not arrive, some answers do not."""

    def __init__(self, inner, rng, share):
        self.inner, self.rng, self.share, self.kinds = inner, rng, share, inner.kinds

    def _call(self, act, *given, **more):
        if self.rng.random() < self.share:
            raise IndexUnavailableError("no such host")
        answer = act(*given, **more)
        if self.rng.random() < self.share:
            raise IndexUnavailableError("no answer in time")
        return answer

    def put(self, entries):
        self._call(self.inner.put, entries)

    def set_fields(self, changes):
        self._call(self.inner.set_fields, changes)

    def delete(self, ids):
        self._call(self.inner.delete, ids)

    def move(self, position):
        self._call(self.inner.move, position)

    def get(self, ids, *, vectors=False):
        return self._call(self.inner.get, ids, vectors=vectors)

    def scan(self, conditions=(), *, vectors=False, batch=1_000):
        return self._call(lambda: list(self.inner.scan(conditions, vectors=vectors, batch=batch)))

    def near(self, kind, vector, limit, conditions=()):
        return self._call(self.inner.near, kind, vector, limit, conditions)

    def matching(self, query, limit, conditions=()):
        return self._call(self.inner.matching, query, limit, conditions)

    def count(self, conditions=()):
        return self._call(self.inner.count, conditions)

    def positions(self):
        return self._call(self.inner.positions)

    def close(self):
        self.inner.close()


def run(log, index, rng, vocabulary=None):
    """Reads as the runner does: each partition in order from the index's position, in batches of any mix.

    What finds the index away is done again by the same view, until the index answers.
    """

    def patient(action):
        return patiently(action, VectorView.retried, "test", METERS, lambda _: False)

    reading = dict.fromkeys(log.partitions, 0) | {
        at: offset for at, offset in patient(index.positions).items() if at in log.partitions
    }
    view = VectorView(index, fetch, vocabulary)
    view.letters = lambda unreadable: pytest.fail(f"refused: {unreadable}")
    while any(reading[at] < len(messages) for at, messages in log.partitions.items()):
        batch = []
        for at in rng.sample(sorted(log.partitions), len(log.partitions)):
            some = log.partitions[at][reading[at] : reading[at] + rng.randrange(4)]
            reading[at] += len(some)
            batch += some
        if batch:
            patient(partial(view.apply, batch))
