"""The player: one order of events, paced or not, each exactly once even after kill -9."""

import os
import signal
import subprocess
import sys
import time
from threading import Event

import numpy as np
import polars as pl
from recount import committed_ids, log_ends

from connectors import demo_data
from connectors.player import Player, PlayOptions, Timeline
from dealeriq.settings import Settings

_PLAY = """
import sys
from connectors.player import Player, PlayOptions
from connectors.settings import KafkaSettings, RegistrySettings
kafka, registry, name, orders, rate = sys.argv[1:]
options = PlayOptions(topics=("orders", "chats"), orders=int(orders), name=name, commit_s=0.05,
                      rate=float(rate))
Player(KafkaSettings(bootstrap=kafka), RegistrySettings(url=registry), options,
       on_stats=lambda stats: print(stats.position, flush=True)).play()
"""


def _fake(topic_name: str, times: list[int]) -> demo_data.Source:
    return demo_data.Source(topic_name, "test", np.array(times, dtype=np.int64), lambda a, b: pl.DataFrame())


def test_a_bound_on_orders_is_a_prefix_of_the_whole() -> None:
    sources = [_fake("orders", [1, 3, 3, 5]), _fake("chats", [2, 3, 4, 9])]
    whole, part = Timeline(sources), Timeline(sources, orders=2)
    assert whole.times.tolist() == [1, 2, 3, 3, 3, 4, 5, 9]
    assert part.owners.tolist() == whole.owners[: len(part)].tolist() == [0, 1, 0]
    assert whole.counts(5) == [3, 2]


def test_killed_again_and_again_every_event_is_there_once(stack: Settings) -> None:
    orders = 60_000
    before = {name: log_ends(stack, name) for name in ("orders", "chats")}
    name = f"kill-{time.time_ns()}"
    argv = [sys.executable, "-c", _PLAY, str(stack.kafka.bootstrap), str(stack.registry.url), name, str(orders)]
    positions = []
    for _ in range(3):
        with subprocess.Popen([*argv, "12000"], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            positions.append(int(child.stdout.readline()))  # comes a second after the start: in full swing
            os.kill(child.pid, signal.SIGKILL)
    assert sorted(set(positions)) == positions
    assert positions[-1] < orders
    subprocess.run([*argv, "1e9"], check=True, timeout=120, stdout=subprocess.DEVNULL)
    expected = demo_data.orders(orders)
    until = int(expected.times[-1])
    ids = {i for frame in expected.frames() for i in frame["event_id"]}
    found = committed_ids(stack, "orders", before["orders"])
    assert found.keys() == ids
    assert max(found.values()) == 1
    said = committed_ids(stack, "chats", before["chats"])
    # Order lines stand first among events of one time, so a chat of the very last moment is not played.
    assert len(said) == int((demo_data.chats().times < until).sum())
    assert max(said.values()) == 1


def test_stopping_commits_and_the_next_run_goes_on(stack: Settings) -> None:
    options = PlayOptions(topics=("orders",), rate=4_000, orders=6_000, name=f"stop-{time.time_ns()}")
    stop = Event()
    player = Player(stack.kafka, stack.registry, options, lambda _: stop.set(), stop)
    before = log_ends(stack, "orders")
    first = player.play()
    assert 0 < first.position < 6_000
    assert first.clock_ms == player.clock() == int(demo_data.orders(6_000).times[first.position - 1])
    last = Player(stack.kafka, stack.registry, options).play()
    assert last.finished
    found = committed_ids(stack, "orders", before)
    assert (len(found), max(found.values())) == (6_000, 1)
