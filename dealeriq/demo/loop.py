"""The loop, unattended: a stream that changes, and everything that follows from it, seen from outside.

What is here only produces orders and looks on. It asks for the first version, as a person would; at the end, as
a person might, it trains one on weeks that are long gone, which has to be refused, and rolls back once. Between
the two nothing is asked for, trained or promoted by it. Orders
come a stretch of weeks at a time, and the next ones when the system has done all it wants to do with these:
time stands still meanwhile, so what happens depends on the events and not on the machine.
"""

from __future__ import annotations

import copy
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from connectors.kafka import KafkaUnavailableError
from connectors.player import Player, PlayOptions
from dealeriq.demo.changed import days, newest_of, week_of, weeks
from dealeriq.demo.looking import Happened, Onlooker
from dealeriq.demo.progress import settle
from dealeriq.settings import Settings
from dealeriq.system import System
from dealeriq.training import record, train
from models.lifecycle_log import LifecycleLog
from models.requests import send
from schemas.errors import DealerIQError
from streams.verify.broker import Broker

__all__ = ["LOOP_MODEL", "PAST", "LoopPlaceError", "LoopStalledError", "LoopStory", "Story", "prepare"]

LOOP_MODEL = "demand_forecast"
_LONGEST_S = 1_800.0  # that a training, or a look of the watch, may take
_PAUSE_S, _QUICK_S = 0.3, 0.05
PAST = 4
"""Weeks before the first training at which the bad version's data end."""

T = TypeVar("T")


class LoopStalledError(DealerIQError):
    """The loop did not take its next step in time."""

    remedy = "Look at logs/trainer.log and logs/score-view.log in the data folder."
    exit_code = 4


class LoopPlaceError(DealerIQError):
    """The story needs a system of its own: other orders would be others' story."""

    remedy = "Name an empty data folder: DEALERIQ_DATA_DIR=FOLDER dealeriq demo --loop."
    exit_code = 2


@dataclass(frozen=True)
class Story:
    """What comes when, in weeks of the carried year from 0: the first training, the change, and the end.

    `stretch` weeks come together. `dealers` is how many there are.
    """

    dealers: int = 48
    first: int = 20
    change: int = 21
    last: int = 49
    stretch: int = 2


def prepare(settings: Settings) -> None:
    """Set what the story needs: nothing that is due by the wall clock, and looks that follow at once."""
    settings.scoring.enabled = True
    settings.recommend.enabled = False
    settings.trainer.min_interval_s = 0.0
    settings.monitors.enabled = True
    settings.monitors.every_s = 1.0
    settings.monitors.schedule = "never"
    settings.monitors.cool_down_days = 28.0
    settings.monitors.least_dealers = 10  # after the change half of them order in a week
    settings.verify.every_s = 86_400.0


@dataclass
class LoopStory:
    """One run on a system that was started with `prepare`d settings, its clock that of the events.

    `tell` is given each step as it is seen.
    """

    system: System
    story: Story = field(default_factory=Story)
    tell: Callable[[Happened], None] = lambda step: None
    progress: Callable[[str], None] = lambda line: None

    def run(self) -> dict[str, Any]:
        """Play it; return the steps, the live error by window and version, and the seconds that steps took.

        Raises LoopPlaceError, LoopStalledError, SettleTimeoutError, and what the system raises.
        """
        story, settings = self.story, self.system.supervisor.settings
        if any(Broker(settings.kafka).ends("orders").values()):
            raise LoopPlaceError("there are orders in this system already")
        self.progress("choosing the dealers and their orders")
        sources = weeks(story.dealers, story.change, story.last)
        with Onlooker(self.system, LOOP_MODEL, self.tell) as seen:
            self._look_on = seen
            self._play(sources, 0, story.first)
            seen.note("played", week_of(story.first), f"{story.first} weeks of {story.dealers} dealers' orders")
            self._patiently(lambda: settle(self.system, self.progress))
            send(settings.kafka, settings.registry, LOOP_MODEL, "person", "the first version")
            self._until(lambda: seen.state.champion, "the first champion")
            self._until(seen.served, "the scorers")
            self._rest()
            at = story.first
            while at < story.last:
                upto = min(at + story.stretch, story.last)
                if at <= story.change < upto:
                    seen.note("changed", week_of(story.change), "dealers order every other week from now on")
                self._play(sources, at, upto)
                self._rest()
                seen.count(week_of(upto))
                at = upto
            self._train_on_the_past()
            back = self._roll_back() if seen.state.former else {}
            return seen.told() | {
                "orders": sum(len(each) for each in sources), "dealers": story.dealers,
                "changed_ms": week_of(story.change), "ended_ms": week_of(story.last), "rolled_back": back,
            }  # fmt: skip

    def _play(self, sources: list[Any], begin: int, end: int) -> None:
        """Play weeks: all at once before there is a model; then a day at a time, each when the last is scored,
        so that scores are as many and as far apart as they would be in these weeks.
        """
        settings, seen = self.system.supervisor.settings, self._look_on
        for number in range(begin, end):
            whole = sources[number]
            parts = days(whole) if seen.state.champion else [whole]
            for day, part in enumerate(parts):
                options = PlayOptions(topics=("orders",), name=f"loop-{number}-{day}")
                Player(settings.kafka, settings.registry, options, sources=[part]).play()
                if seen.state.champion:
                    newest = newest_of(part)
                    self._until(lambda newest=newest: seen.scored(newest), "the scores of a day", _QUICK_S)  # type: ignore[misc]
        seen.came()

    def _rest(self) -> None:
        """Wait until all is judged, every request is answered, and every decision is served."""
        while True:
            before = self._look_on.position
            self._patiently(lambda: settle(self.system, self._watching))
            looks = self._looks()
            # The look that runs now may have begun before the lake was whole: the one after it has not.
            self._until(lambda looks=looks: self._looks() >= looks + 2, "a look of the watch")  # type: ignore[misc]
            self._until(self._look_on.idle, "the trainer")
            self._until(self._look_on.served, "the scorers")
            if self._look_on.position == before:
                return

    def _train_on_the_past(self) -> None:
        """Train a version that knows nothing of the change, as `dealeriq models train --as-of` does."""
        settings, seen = self.system.supervisor.settings, self._look_on
        weeks_seen = self.story.first - PAST
        seen.asked(week_of(weeks_seen), f"a person trains on the first {weeks_seen} weeks alone")
        cause = uuid.uuid4().hex
        with LifecycleLog(settings.kafka, settings.registry) as log:
            log.catch_up()
            state = copy.deepcopy(log.registry.state(LOOP_MODEL))
            result = train(settings, state, cause, as_of_ms=week_of(weeks_seen), progress=self.progress)
            record(log, settings, state, result, cause)
        self._rest()

    def _roll_back(self) -> dict[str, Any]:
        """Go back to the champion before, and hold its scores against those it gave before."""
        from dealeriq.demo.again import same_scores

        seen = self._look_on
        was, now = seen.state.before(), seen.state.champion
        began = time.monotonic()
        seen.roll_back()
        self._until(seen.served, "the scorers")
        crowned = seen.state.versions[was.version].at
        told = same_scores(self.system.supervisor.settings, LOOP_MODEL, was.version, was.artifact, crowned)
        return {"from": now, "to": was.version, "seconds": round(time.monotonic() - began, 1)} | told

    def _looks(self) -> float:
        meters = self.system.meters().get("trainer", {})
        return meters.get('dealeriq_stage_batch_seconds_count{stage="monitor"}', 0.0)

    def _patiently(self, ask: Callable[[], T]) -> T:
        """Ask again where a busy machine's broker does not answer in time."""
        ends = time.monotonic() + _LONGEST_S
        while True:
            try:
                return ask()
            except KafkaUnavailableError as error:
                if time.monotonic() > ends:
                    raise
                self.progress(error.told)

    def _watching(self, line: str) -> None:
        self._look_on.look()
        self.progress(line)

    def _until(self, done: Callable[[], Any], what: str, pause_s: float = _PAUSE_S) -> None:
        ends = time.monotonic() + _LONGEST_S
        while True:
            if pause_s >= _PAUSE_S:
                self._patiently(self._look_on.look)
            if self._patiently(done):
                return
            if time.monotonic() > ends:
                raise LoopStalledError(f"{what} did not come in {_LONGEST_S:.0f} s")
            time.sleep(pause_s)
