"""The benchmarks' page says what the kept results say."""

import json
from pathlib import Path

from benchmarks.catalogue import BENCHMARKS
from benchmarks.contract import Claim, ratio
from benchmarks.report import PAGE, render, table


def test_the_page_is_written_from_the_results() -> None:
    assert PAGE.read_text("utf-8") == render(), "run `./run bench report`"


def test_a_missed_aim_is_said_with_its_reason(tmp_path: Path) -> None:
    name = BENCHMARKS[0].name
    slow = Claim("time", 80.0, "s", 75, at_most=True, spread=(78.0, 90.5), why="It waits\nfor the disk.")
    fast = Claim("beside a peer", 12.25, "×", 10)
    result = {
        "how": "So.", "at": "2026-01-02", "table": [{"a": 1, "b": "x"}], "options": {"orders": "5"},
        "machine": {"cores": 2, "processor": "P", "memory_gib": 4, "system": "S", "python": "3"},
        "claims": [slow.to_json(), fast.to_json()],
    }  # fmt: skip
    (tmp_path / f"{name}.json").write_text(json.dumps(result))
    page = render(tmp_path)
    assert f"| [{name}](#{name}) | time | 80 s (78 to 90.5) | at most 75 s | **missed** |" in page
    assert f"| [{name}](#{name}) | beside a peer | 12.2× | at least 10× | met |" in page
    assert "- time: 80 s (78 to 90.5) where the aim is at most 75 s. It waits for the disk.\n" in page
    assert f"`./run bench {name} -o orders=5`, 2026-01-02, on 2 cores (P), 4 GiB, S, Python 3." in page


def test_benchmarks_without_a_result_are_named(tmp_path: Path) -> None:
    assert f"Not measured yet: {', '.join(each.name for each in BENCHMARKS)}." in render(tmp_path)


def test_numbers_are_short() -> None:
    assert table([{"n": 1234567, "f": 0.123456}]).endswith("| 1,234,567 | 0.123 |\n")


def test_a_ratio_pairs_runs() -> None:
    assert ratio([10.0, 30.0, 20.0], [1.0, 2.0, 2.0]) == (10.0, (10.0, 15.0))
