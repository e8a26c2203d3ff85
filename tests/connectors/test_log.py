"""Logs go to stderr, tell which part speaks, and show no values of variables."""

import pytest

from connectors.log import get_logger


def test_an_event_goes_to_stderr_with_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    get_logger("dealeriq.some").warning("away", stage="one")
    told = capsys.readouterr()
    assert not told.out
    assert all(part in told.err for part in ("warning", "away", "[dealeriq.some]", "stage=one"))


def test_a_traceback_shows_no_values(capsys: pytest.CaptureFixture[str]) -> None:
    token = "-".join(["never", "told"])
    try:
        raise ValueError(len(token))
    except ValueError:
        get_logger().exception("failed")
    told = capsys.readouterr().err
    assert "ValueError: 10" in told
    assert "never-told" not in told
