"""Topics that others are derived from: each event became its derived event, or a dead letter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from connectors.registry import Registry
from schemas.catalogue import CATALOGUE
from streams.verify.accounts import Letters, agent_account, read_letters, rejected_findings
from streams.verify.broker import Broker
from streams.verify.findings import Report
from streams.verify.log import TopicReader
from streams.verify.positions import LABEL_VIEW, LOOKED_UP, held_feedback, held_positions

__all__ = ["account_for_derived"]


def account_for_derived(
    report: Report,
    broker: Broker,
    registry: Registry,
    store: Any,
    readers: Mapping[str, TopicReader],
    progress: Callable[[str], None],
    pause: Callable[[], None],
) -> None:
    """Add to `report` what became of every event that an agent or the label view passed.

    `readers` have read topics already, and are asked to read on.
    """
    for agent, source, target in _agents():
        waiting: set[str] = set()
        if agent == LABEL_VIEW:  # position, then what waits, then what was derived: nothing falls between
            upto = held_positions(store, agent, source)
            waiting = held_feedback(store)
        else:
            upto = broker.committed(f"dealeriq-{agent}", source)
        letters: Letters = read_letters(broker.kafka, source)
        progress(f"comparing {source} with {target}")
        derived = TopicReader(broker, registry, target, ["cause_id"], pause)
        derived.read(broker.ends(target))
        reader = readers.get(source) or TopicReader(broker, registry, source, [], pause)
        reader.read(broker.ends(source))
        whole = not any(broker.firsts(source).values())
        account, findings = agent_account(
            reader, derived.events(), agent, letters.of(agent), upto, whole, waiting
        )
        report.add(findings)
        if source not in readers:
            report.add(rejected_findings(broker, reader, letters, agent, upto))
            report.topics[source] = account
        else:
            report.topics[f"{source} → {target}"] = account


def _agents() -> list[tuple[str, str, str]]:
    """Return (agent, source, target) of what derives events, as the catalogue declares it."""
    found = []
    for target in CATALOGUE.values():
        for writer in target.writers:
            causes = target.schema is not None and any(f["name"] == "cause_id" for f in target.schema["fields"])
            if causes and (writer.endswith("-agent") or writer == LABEL_VIEW):
                sources = [s.name for s in CATALOGUE.values() if writer in s.readers]
                found += [(writer, name, target.name) for name in sources if (writer, name) not in LOOKED_UP]
    return found
