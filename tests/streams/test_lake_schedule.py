"""The lake's upkeep goes on whatever one table does."""

import threading
from pathlib import Path

from lake_tables import order, write_events

from connectors.lake import files
from streams.views.lake_upkeep import LakeUpkeep


def upkeep(root: Path, *topics: str) -> LakeUpkeep:
    return LakeUpkeep(root, topics, current_every_s=0.01, compact_every_s=0.01, retention_h=1)


def test_a_broken_table_does_not_keep_the_others_from_being_kept(tmp_path: Path) -> None:
    for name in ("chats", "orders"):
        for k in range(3):
            write_events(tmp_path, name, [order(k) if name == "orders" else b"poison"])
    (tmp_path / "chats/_delta_log/00000000000000000002.json").write_text("{")
    work = upkeep(tmp_path, "chats", "orders", "labels")
    work.refresh(threading.Event())
    work.tidy(threading.Event())
    assert len(files(tmp_path, "orders")) == 1
    assert len(files(tmp_path, "orders", current=True)) == 1


def test_rounds_come_on_schedule_until_stopped(tmp_path: Path) -> None:
    for k in range(3):
        write_events(tmp_path, "orders", [order(k)])
    stop = threading.Event()
    thread = threading.Thread(target=upkeep(tmp_path, "orders").run, args=(stop,))
    thread.start()
    try:
        waited = threading.Event()
        for _ in range(1_800):
            if len(files(tmp_path, "orders")) == 1 and (tmp_path / "current/orders/_delta_log").exists():
                break
            waited.wait(0.1)
        assert len(files(tmp_path, "orders")) == 1
    finally:
        stop.set()
        thread.join(60)
    assert not thread.is_alive()
