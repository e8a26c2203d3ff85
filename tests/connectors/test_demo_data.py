"""The demo's data: the same everywhere, in order, as the contracts allow."""

import subprocess
import sys

import polars as pl
import pytest

from connectors import demo_data
from schemas.validate import problems

COUNTS = {"dealers": 457, "products": 92_331, "orders": 1_469_307, "chats": 258_112, "feedback": 17_964}


@pytest.mark.parametrize("name", list(demo_data.TOPICS))
def test_every_source_is_ordered_and_valid(name: str) -> None:
    source = demo_data.source(name)
    assert len(source) == COUNTS.get(name, len(source))
    assert bool((source.times[1:] >= source.times[:-1]).all())
    frame = source.frame(len(source) // 2, min(len(source) // 2 + 3_000, len(source)))
    assert frame["event_time"].to_list() == source.times[len(source) // 2 :][: frame.height].tolist()
    assert [found for row in frame.to_dicts() if (found := problems(name, row))] == []


def test_orders_agree_with_the_package_file() -> None:
    raw = pl.read_parquet(demo_data._completejourney("transactions"))
    total = sum(frame["amount"].sum() for frame in demo_data.orders().frames(200_000))
    assert total == pytest.approx(raw["sales_value"].sum())


def test_chats_keep_the_pace_of_their_conversation() -> None:
    chats = demo_data.chats()
    frame = chats.frame(0, len(chats))
    assert frame["event_id"].is_unique().all()
    one = frame.filter(pl.col("conversation_id") == "a07edb12-6b91-4138-b11e-02421888d699")
    assert one["text"].to_list()[:3] == ["Hello", "How are you doing today?", "whats up MD"]
    assert (one["event_time"].to_numpy()[:3] - one["event_time"][0]).tolist() == [0, 5_000, 14_000]
    assert one["dealer_id"].n_unique() == 1


def test_no_pandas_is_imported() -> None:
    code = (
        "import sys; from connectors import demo_data; from connectors.messages import MessageWriter\n"
        "for name in demo_data.TOPICS:\n"
        "    source = demo_data.source(name); MessageWriter(name, 1, 'x').write(source.frame(0, 9))\n"
        "assert 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
