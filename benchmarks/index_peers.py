"""The peers of the embed agent: LangChain's index with a record manager, and CocoIndex, on the same texts."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks.peer import converse

__all__ = ["indexed_by_peers"]

_PEERS = {"LangChain": "langchain", "CocoIndex": "cocoindex"}
_EDITED = 100  # each so many texts, one is edited


def indexed_by_peers(texts: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """Return, of each peer and pass, how many texts a second its store follows.

    The passes: into an empty store, again with none changed, and again with 1 % changed. Raises RuntimeError
    where a peer encoded another number of texts than changed.
    """
    edited = {
        name: f"{text} new recipe" if number % _EDITED == 7 else text
        for number, (name, text) in enumerate(texts.items())
    }
    changed = sum(edited[name] != text for name, text in texts.items())
    passes = [
        ("full run", texts, len(texts)),
        ("none changed", texts, 0),
        (f"{changed} changed", edited, changed),
    ]
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="dealeriq-bench-") as folder:
        file = Path(folder) / "texts.json"
        for name, kind in _PEERS.items():
            found[name] = {}
            with converse("benchmarks.peers.indexing", kind) as peer:
                for what, these, due in passes:
                    file.write_text(json.dumps(list(these.items())), "utf-8")
                    told = peer.say({"file": str(file)})
                    if told["encoded"] != due:
                        raise RuntimeError(f"{name} encoded {told['encoded']} texts, and {due} changed")
                    found[name][what] = len(these) / told["seconds"]
    return found
