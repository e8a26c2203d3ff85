"""Makes docs/terminal.svg from the running demo: `.venv/bin/python docs/terminal.py`.

It plays the carried year into a system in a folder of its own, at a pace that a small machine keeps, and draws
what `./run demo` shows after a minute.
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from dealeriq.demo.progress import read
from dealeriq.demo.screen import draw, features_shown
from dealeriq.runtime import Supervisor
from dealeriq.settings import load
from dealeriq.system import SERVICES, System

PICTURE = Path(__file__).with_name("terminal.svg")
_WIDTH, _PACE, _PLAY_S, _LOOK_S = 130, "1500", 75.0, 2.0


def main() -> None:
    """Run, draw, write."""
    settings = load(running=False)
    settings.demo.speed = _PACE
    console = Console(record=True, width=_WIDTH, file=sys.stderr, force_terminal=True)
    with (
        tempfile.TemporaryDirectory(prefix="dealeriq-picture-") as folder,
        Supervisor(settings, SERVICES, Path(folder)) as supervisor,
    ):
        system = System(supervisor, clock="event")
        system.start()
        system.start_process("player", once=True)
        time.sleep(_PLAY_S)
        before = read(system)
        time.sleep(_LOOK_S)
        console.print(draw(system, before, read(system), features_shown(system)))
    picture = console.export_svg(title="./run demo")
    # Fonts are the reader's own: nothing is fetched from elsewhere.
    PICTURE.write_text(re.sub(r"@font-face \{.*?\}\n", "", picture, flags=re.DOTALL), "utf-8")


if __name__ == "__main__":
    main()
