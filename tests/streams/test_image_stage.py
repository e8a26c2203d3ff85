"""The image stage on a real Redis and ONNX: the topic ends as the newest readable picture of each product."""

import io
import random
import uuid
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from redis import Redis

from connectors.images import ImageSource
from models.embedding import Owner, marked
from models.encoding import EncoderError, EncoderFolder, Picture
from models.image import OnnxImageEncoder, image_encoder
from models.settings import ImageSettings
from schemas.catalogue import topic
from schemas.codec import Decoder
from schemas.codec import Encoder as Encode
from schemas.validate import problems
from streams.agents.embedded import Embedded
from streams.agents.images import ImageStage
from streams.agents.stage import Event, Message

pytestmark = pytest.mark.services

COLOURS = {"red": (255, 0, 0), "olive": (128, 128, 0), "sky": (100, 180, 250)}


def write_model(file: Path) -> None:
    """The mean colour: an encoder whose vectors anyone can compute."""
    from onnx import TensorProto, helper

    node = helper.make_node("ReduceMean", ["pixels"], ["vector"], axes=[2, 3], keepdims=0)
    graph = helper.make_graph(
        [node],
        "colour",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["n", 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    file.write_bytes(model.SerializeToString())


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> OnnxImageEncoder:
    root = tmp_path_factory.mktemp("image")
    (root / ".made").mkdir()
    write_model(root / ".made" / "image.onnx")
    part = Picture(width=8, height=8, mean=(0, 0, 0), std=(1, 1, 1))
    EncoderFolder(name="colour", dimension=3, image=part).save(root / ".made", root / "colour")
    return image_encoder(ImageSettings(model=root / "colour"))


@pytest.fixture
def redis(stack):
    return Redis.from_url(stack.redis.address)


@pytest.fixture
def pictures(tmp_path) -> Path:
    for name, colour in COLOURS.items():
        out = io.BytesIO()
        Image.new("RGB", (20, 30), colour).save(out, "PNG")
        (tmp_path / f"{name}.png").write_bytes(out.getvalue())
        (tmp_path / f"again-{name}.png").write_bytes(out.getvalue())
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    return tmp_path


class Counted(OnnxImageEncoder):
    """The real encoder, and how many pictures it was given."""

    def __init__(self, real: OnnxImageEncoder) -> None:
        self.__dict__.update(real.__dict__)
        self.count = 0

    def encode(self, batch):
        self.count += len(batch)
        return super().encode(batch)


def stage_of(encoder, redis, folder: Path) -> ImageStage:
    source = ImageSource(folder=folder, hosts=(), most_bytes=100_000, timeout_s=5, patience_s=0)
    return ImageStage(encoder, Embedded(redis, "image"), source)


def event(offset: int, key: str, address: str | None, time_ms: int, *, deleted=False, gone=False) -> Event:
    time_ms += 1_500_000_000_000
    record = {"product_id": key, "image_url": address, "deleted": deleted, "event_time": time_ms}
    return Event("products", 0, offset, key, None if gone else record, time_ms, 100)


def through(stage: ImageStage, *events: Event):
    outcomes = stage.derive(events)
    kept = [(e, o) for e, o in zip(events, outcomes, strict=True) if o.refused is None]
    stage.after([e for e, _ in kept], [o for _, o in kept])
    return outcomes


def unit(colour) -> np.ndarray:
    return np.array(colour, np.float32) / np.linalg.norm(colour)


def test_a_picture_is_encoded_once_and_only_a_new_address_is_fetched(encoder, redis, pictures):
    key, counted = uuid.uuid4().hex, Counted(encoder)
    address = f"file://{pictures}/red.png"
    (first,) = through(stage_of(counted, redis, pictures), event(0, key, address, 1))
    (record,) = [each.record for each in first.derived]
    assert problems("embeddings", record) == []
    assert (record["kind"], record["encoder"], record["dimension"]) == ("image", encoder.identity, 3)
    assert np.allclose(np.frombuffer(record["vector"], "<f4"), unit(COLOURS["red"]), atol=1e-5)
    (pictures / "red.png").unlink()  # the same address again is not even looked at, by another process neither
    (same,) = through(stage_of(counted, redis, pictures), event(1, key, address, 2))
    assert (same.name, same.derived) == ("unchanged", ())
    (moved,) = through(stage_of(counted, redis, pictures), event(2, key, f"file://{pictures}/again-red.png", 3))
    assert (moved.name, moved.derived, counted.count) == ("unchanged", (), 1)
    (late,) = through(stage_of(counted, redis, pictures), event(3, key, f"file://{pictures}/sky.png", 2))
    assert (late.name, late.derived) == ("superseded", ())
    (none,) = through(stage_of(counted, redis, pictures), event(4, key, None, 4))
    assert [(each.key, each.record) for each in none.derived] == [(record["chunk_id"], None)]


@pytest.mark.parametrize("name", ["red", None])
def test_a_record_that_says_the_same_again_is_known_and_not_read(encoder, redis, pictures, name):
    encode, decoder = (
        Encode("products", 7).encode,
        Decoder.of_topic("products", lambda _: topic("products").schema),
    )
    key, first = uuid.uuid4().hex, 1_500_000_000_000
    address = name and f"file://{pictures}/{name}.png"
    record = {each["name"]: None for each in topic("products").schema["fields"]} | {
        "product_id": key, "name": "n", "category": "c", "image_url": address, "deleted": False,
    }  # fmt: skip

    def known(**more):
        value = encode(record | more)
        message = Message("products", 0, 0, first, key.encode(), value, ())
        return stage.recogniser.sort([message], {"products": decoder}, ()).known == [message]

    stage = stage_of(encoder, redis, pictures)
    assert not known(event_time=first)
    mark, _ = marked("products", decoder, encode(record | {"event_time": first}), encoder.identity)
    through(stage, Event("products", 0, 0, key, record | {"event_time": first}, first, 100, mark))
    assert known(event_time=first + 2)
    assert not known(event_time=first + 1)
    assert not known(event_time=first + 3, price=2.0)  # it is read, and its address known
    assert not known(event_time=first + 3, deleted=True)
    assert Embedded(redis, "image").read([Owner("product", key)])[0].time_ms == first + 2


def test_a_bad_picture_is_a_dead_letter_and_the_others_go_on(encoder, redis, pictures):
    keys = [uuid.uuid4().hex for _ in range(3)]
    good, bad, other = through(
        stage_of(encoder, redis, pictures),
        event(0, keys[0], f"file://{pictures}/red.png", 1),
        event(1, keys[1], f"file://{pictures}/broken.png", 1),
        event(2, keys[2], f"file://{pictures}/none.png", 1),
    )
    assert good.name == "encoded"
    assert bad.refused is not None
    assert "PNG" in bad.refused
    assert keys[1] in bad.refused
    assert "there is no file" in str(other.refused)


@pytest.mark.parametrize("seed", range(25))
def test_any_batches_repeats_and_crashes_end_as_the_newest_readable_picture(encoder, redis, pictures, seed):
    rng, mark = random.Random(seed), uuid.uuid4().hex[:8]
    names = ["red", "olive", "sky", "again-red", "broken", None]
    events = []
    for offset in range(rng.randrange(1, 25)):
        name = rng.choice(names)
        address = None if name is None else f"file://{pictures}/{name}.png"
        key = f"{mark}-{rng.randrange(2)}"
        gone, deleted = rng.random() < 0.1, rng.random() < 0.1
        events.append(event(offset, key, address, rng.randrange(1, 8), deleted=deleted, gone=gone))
    topic: dict[str, dict] = {}
    done = 0
    while done < len(events):
        batch = events[done : done + rng.randrange(1, 6)]
        stage = stage_of(encoder, redis, pictures)
        outcomes = stage.derive(batch)
        reaches = rng.random() < 0.85
        if reaches:
            for each in [each for outcome in outcomes for each in outcome.derived]:
                topic.pop(each.key, None)
                if each.record is not None:
                    topic[each.key] = each.record
        if reaches and rng.random() < 0.8:
            kept = [(e, o) for e, o in zip(batch, outcomes, strict=True) if o.refused is None]
            stage.after([e for e, _ in kept], [o for _, o in kept])
            done += len(batch)
    newest: dict[str, tuple[int, str | None]] = {}
    for each in events:
        if each.record is None:
            newest.pop(each.key, None)
            continue
        name = None if each.record["image_url"] is None else Path(each.record["image_url"]).stem
        if name == "broken" and not each.record["deleted"]:
            continue
        if each.key not in newest or each.time_ms >= newest[each.key][0]:
            newest[each.key] = each.time_ms, None if each.record["deleted"] else name
    wanted = {key: unit(COLOURS[name.removeprefix("again-")]) for key, (_, name) in newest.items() if name}
    found = {each["subject_id"]: np.frombuffer(each["vector"], "<f4") for each in topic.values()}
    assert found.keys() == wanted.keys()
    for key, vector in wanted.items():
        assert np.allclose(found[key], vector, atol=1e-5)
    redis.delete(*(f"dealeriq:embedded-image:product/{mark}-{number}" for number in range(2)))


def test_a_folder_that_encodes_no_images_is_refused(tmp_path):
    with pytest.raises(EncoderError, match=r"image\.model is unset"):
        image_encoder(ImageSettings())
    with pytest.raises(EncoderError, match="cannot be read"):
        image_encoder(ImageSettings(model=tmp_path))
