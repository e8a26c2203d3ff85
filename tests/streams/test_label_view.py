"""Labels are right whichever side comes first, through repeats and crashes, against a plain recomputation."""

import signal
import uuid
from collections import defaultdict

import pytest
from agent_world import NOW_MS, World, stop, until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.kafka import KafkaUnavailableError
from connectors.redis import connect
from features.writer import StoreReplacedError
from schemas.catalogue import topic
from schemas.codec import Decoder, Encoder
from schemas.envelope import parse_headers
from streams.labels.message import HeldMessage
from streams.labels.store import LabelStore
from streams.views.label_view import LabelView

pytestmark = [pytest.mark.services, pytest.mark.timeout(600)]

IDS = {1: "feedback", 2: "chats.enriched", 3: "labels"}
ENCODE = {name: Encoder(name, number).encode for number, name in IDS.items()}
LABELS = Decoder.of_topic("labels", lambda number: topic(IDS[number]).schema)
KEEP_DAYS = 2.0


class Message(HeldMessage):
    def timestamp(self):
        return 1, NOW_MS


def chat(number, dealer, intent, reading=0):
    return {
        "event_id": f"e{number}-{reading}", "conversation_id": "v", "dealer_id": dealer, "customer_id": None,
        "sender": "customer", "text": "words", "language": "en", "intent": intent, "intent_score": 0.5,
        "sentiment": 0.0, "urgency": 0.0, "encoder": "x", "cause_id": f"c{number}", "event_time": NOW_MS,
    }  # fmt: skip


def feedback(number, dealer, about, kind="thumb", **more):
    return {
        "event_id": f"f{number}", "dealer_id": dealer, "subject_type": "chat", "subject_id": about,
        "kind": kind, "value": 1.0, "comment": None, "source": "test", "event_time": NOW_MS + number,
    } | more  # fmt: skip


DEALERS = st.sampled_from(["d0", "d1", "d2"])
CHATS = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from(["praise", "return", "warranty"])), min_size=1, max_size=9
)
FEEDBACK = st.lists(
    st.builds(
        feedback,
        st.integers(0, 12),
        DEALERS,
        st.sampled_from([f"c{number}" for number in range(8)]),
        st.sampled_from(["thumb", "correction", "rating"]),
        comment=st.sampled_from([None, " ", "it is a complaint"]),
        subject_type=st.sampled_from(["chat", "chat", "chat", "order"]),
    ),
    min_size=1,
    max_size=16,
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["feedback", "chats.enriched", "both"]),
        st.integers(1, 5),
        st.sampled_from(["", "", "", "kafka away", "before commit", "after commit", "answer lost", "emptied"]),
    ),
    max_size=12,
)


def logs(chats, given):
    """Both topics as Kafka would hold them: a partition for each dealer's events, poison among them."""
    found = defaultdict(list)

    def add(name, dealer, value):
        place = name, int(dealer[1]) % 2
        found[place].append(
            Message(name, place[1], len(found[place]), dealer.encode(), value, [("mine", b"kept")])
        )

    for at, (number, intent) in enumerate(chats):
        dealer = f"d{number % 3}"
        add("chats.enriched", dealer, ENCODE["chats.enriched"](chat(number, dealer, intent, at)))
    first = {}
    for each in given:
        same = first.setdefault(each["event_id"], each)  # an id that comes again is the same event
        add("feedback", same["dealer_id"], ENCODE["feedback"](same))
    add("feedback", "d0", b"poison")
    add("feedback", "d1", None)
    return found


def expected(chats, given):
    """Labels by feedback, and the feedback that is refused, recomputed in one plain pass."""
    readings = {}
    for number, intent in chats:
        readings.setdefault(f"c{number}", (f"d{number % 3}", intent))
    labels, refused, unknown = {}, set(), set()
    for each in {one["event_id"]: one for one in reversed(given)}.values():
        said = each["kind"]
        if each["subject_type"] == "chat" and each["subject_id"] in readings:
            dealer, said = readings[each["subject_id"]]
            if dealer != each["dealer_id"]:
                refused.add(each["event_id"])
                continue
        elif each["subject_type"] == "chat":
            unknown.add(each["event_id"])
        if each["kind"] == "correction" and (each["comment"] or "").strip():
            said = each["comment"].strip()
        labels[each["event_id"]] = said
    return labels, refused, unknown


class CrashError(Exception):
    pass


class Topics:
    """What was produced; it outlives a crash of the view."""

    def __init__(self):
        self.labels = defaultdict(set)
        self.letters = set()
        self.away = False
        self._queued = []

    def produce(self, name, value, key, headers, on_delivery):
        self._queued.append((name, value, dict(headers)))

    def flush(self, _timeout):
        queued, self._queued = self._queued, []
        if self.away:
            self.away = False
            return len(queued) + 1
        for name, value, said in queued:
            if name == "labels":
                record = LABELS.decode(value)
                self.labels[record["cause_id"]].add((record["event_id"], record["label"]))
            else:
                self.letters.add((name, value, said["mine"]))
        return 0


class Running:
    """A view as its runner drives it, that may be made to fail."""

    def __init__(self, redis, log):
        self.redis, self.log, self.topics = redis, log, Topics()
        self.project = f"test-{uuid.uuid4().hex}"
        self.now_s = 1_700_000_000.0
        self.start()

    def start(self):
        self.store = LabelStore(self.redis, self.project, KEEP_DAYS, lambda: self.now_s)
        self.view = LabelView(self.store, self.topics, lambda number: topic(IDS[number]).schema, lambda: 3)
        self.next = self.view.positions()

    def batch(self, which, count):
        found = []
        for (name, partition), records in sorted(self.log.items()):
            if which in (name, "both"):
                at = self.next.get((name, partition), 0)
                found += records[at : at + count]
        return found

    def step(self, which, count, fault):
        batch = self.batch(which, count)
        if not batch:
            return
        if fault == "emptied":
            self.empty()
        self.topics.away = fault == "kafka away"
        commit = self.store.commit

        def failing(changes, behind):
            if fault in ("after commit", "answer lost"):
                commit(changes, behind)
            self.store.commit = commit
            raise CrashError

        if fault in ("before commit", "after commit", "answer lost"):
            self.store.commit = failing
        try:
            self.view.apply(batch)
        except KafkaUnavailableError:
            self.view.apply(batch)  # as the runner does with what the view asks to retry
        except StoreReplacedError:
            self.start()
            return
        except CrashError:
            if fault != "answer lost":
                self.start()
                return
            self.view.apply(batch)
        for message in batch:
            self.next[message.topic(), message.partition()] = message.offset() + 1

    def empty(self):
        for key in self.redis.scan_iter(f"{self.project}:*"):
            self.redis.delete(key)

    def to_the_end(self):
        while self.batch("both", 3):
            self.step("both", 3, "")


@pytest.fixture(scope="module")
def redis(stack):
    return connect(stack.redis)


@given(CHATS, FEEDBACK, STEPS)
@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_order_any_repeat_and_any_crash_gives_the_labels_of_a_plain_recomputation(
    redis, chats, given, steps
):
    log = logs(chats, given)
    running = Running(redis, log)
    labels, refused, unknown = expected(chats, given)
    try:
        for step in steps:
            running.step(*step)
        running.to_the_end()
        running.to_the_end()  # a start that found the store emptied
        running.view.tick()  # nobody has waited long enough
        got = {cause: {label for _, label in found} for cause, found in running.topics.labels.items()}
        assert got == {cause: {label} for cause, label in labels.items() if cause not in unknown}
        assert running.store.waiting() == len(unknown)
        running.now_s += KEEP_DAYS * 86_400 + 1
        running.view.tick()
        running.view.tick()
        got = {cause: {label for _, label in found} for cause, found in running.topics.labels.items()}
        assert got == {cause: {label} for cause, label in labels.items()}
        assert all(len(found) == 1 for found in running.topics.labels.values())  # a repeat has the same id
        assert running.store.waiting() == 0
        values = {each["event_id"]: ENCODE["feedback"](each) for each in reversed(given)}
        letters = {("feedback.dlq", values[each], b"kept") for each in refused}
        assert running.topics.letters == letters | {("feedback.dlq", b"poison", b"kept")}
    finally:
        running.empty()


def test_another_process_that_writes_the_same_store_is_refused(redis):
    log = logs([(0, "praise")], [feedback(0, "d0", "c0"), feedback(1, "d0", "c0")])
    one = Running(redis, log)
    other = Running(redis, log)
    other.project = one.project
    other.start()
    try:
        one.step("feedback", 1, "")
        with pytest.raises(StoreReplacedError, match="another process writes it"):
            other.view.apply(other.batch("feedback", 2))
    finally:
        one.empty()


@pytest.fixture
def world(stack, tmp_path):
    made = World(stack, tmp_path)
    made.project = f"labels_{uuid.uuid4().hex[:8]}"
    return made


def running(world, **more):
    return world.start("label-view", DEALERIQ_FEATURES__PROJECT=world.project, **more)


def enriched(world, number, intent, **more):
    of_dealer = {"dealer_id": world.dealer, "cause_id": f"{world.dealer}-{number}"}
    return chat(number, world.dealer, intent) | of_dealer | {"event_id": f"{world.dealer}-e{number}"} | more


@pytest.mark.fault
def test_feedback_before_and_after_its_chat_is_labelled_through_kill_9(world):
    intents = ["praise", "return", "warranty"]
    count = 400
    wanted = {f"{world.dealer}-f{number}": intents[number % 3] for number in range(count)}
    process = running(world)
    try:
        for first in range(0, count, 100):
            some = range(first, first + 100)
            world.send("feedback", *[world.feedback(n, f"{world.dealer}-{n}") for n in some if n % 2])
            world.send("chats.enriched", *[enriched(world, n, intents[n % 3]) for n in some if n % 4 < 2])
            world.send("feedback", *[world.feedback(n, f"{world.dealer}-{n}") for n in some if not n % 2])
            if first == 0:
                world.read("labels", lambda got: len(got) >= 40)
            stop(process, signal.SIGKILL)
            process = running(world)
            world.send("chats.enriched", *[enriched(world, n, intents[n % 3]) for n in some if n % 4 >= 2])
        refused = world.feedback(900, f"{world.dealer}-0", dealer_id="somebody else")
        world.send("feedback", b"no record", refused, world.feedback(901, "an order", subject_type="order"))
        wanted[f"{world.dealer}-f901"] = "thumb"
        labels = lambda got: {each["cause_id"]: each["label"] for each in world.records(got, "labels")}  # noqa: E731
        found = world.read("labels", lambda got: len(got) > count and labels(got).keys() == wanted.keys())
        letters = world.read("feedback.dlq", lambda got: len({each.value() for each in got}) >= 2)
        assert labels(found) == wanted
        records = world.records(found, "labels")
        assert len({(each["event_id"], each["label"]) for each in records}) == len(wanted)
        for message, record in zip(found, records, strict=True):
            assert parse_headers(message.headers()).event_id == record["event_id"]
        reasons = {each.value(): dict(each.headers())["dlq_error"] for each in letters}
        assert b"somebody else" in reasons[world.encode("feedback", refused)]
        assert {dict(each.headers())["dlq_stage"] for each in letters} == {b"label-view"}
        assert stop(process) == 0
    finally:
        stop(process, signal.SIGKILL)


def test_feedback_whose_chat_never_comes_goes_out_as_unknown(world):
    world.send("feedback", world.feedback(1, "never seen"), world.feedback(2, "nor this", kind="rating"))
    with world.agent(
        "label-view", DEALERIQ_FEATURES__PROJECT=world.project, DEALERIQ_AGENTS__SUBJECT_DAYS="0.00003"
    ):
        found = world.records(world.read("labels", lambda got: len(got) >= 2), "labels")
        client = connect(world.stack.redis)
        until(lambda: client.zcard(f"{world.project}:waiting") == 0, world)
    assert {each["subject_id"]: each["label"] for each in found} == {
        "never seen": "thumb",
        "nor this": "rating",
    }
