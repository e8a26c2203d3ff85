"""Values of features at past moments, as the online reader would have given them then."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from connectors.lake import Root, lake_of
from features.history.lake_events import LakeEvents
from features.history.rows import Rows, read_rows
from features.history.selection import choose, column_name
from features.history.windows import Windows
from features.merge import Status
from features.plan import Plan, ViewPlan

__all__ = ["METADATA_KEY", "AsOf", "History", "Origin"]

METADATA_KEY = b"dealeriq.history"
"""Where a table's or a Parquet file's metadata say what its values came from (`Origin`, as JSON)."""

_MEMORY_MB = 768


class AsOf(StrEnum):
    """Which events a row sees of those that happened by its time."""

    EVENT = "event"  # all that the lake holds, however late they came
    ARRIVAL = "arrival"  # those that had come by then, by the record time of their topic


@dataclass(frozen=True)
class Origin:
    """What values came from: the version and the positions of each topic's table in the lake."""

    lake: str
    as_of: str
    versions: dict[str, int | None]
    positions: dict[str, dict[int, int]] = field(repr=False)

    def to_json(self) -> str:
        """Return it as JSON."""
        return json.dumps(vars(self))


class History:
    """Point-in-time values from the lake, at one version of each table.

    What is read stays, so one History answers many frames. Use it as a context manager: what does not fit into
    memory lies in a scratch folder until then.

    Args:
        plan: the compiled plan.
        names: services, views or features (`view.feature`) to give.
        lake: the lake, or its folder.
        as_of: whether late events are included or only what was known.
        memory_mb: DuckDB's limit; with what a chunk of events takes, the process needs about 1 GB more.
        scratch: where the scratch folder is made; default: the system's.
        until_ms: the lake as if it ended then: later events are not read at all.
        progress: called with a line from time to time.

    Raises:
        UnknownFeatureError: a name is not in the plan.
        LakeError: the lake cannot be read.
    """

    def __init__(
        self,
        plan: Plan,
        names: Iterable[str],
        lake: Root,
        *,
        as_of: AsOf | str = AsOf.EVENT,
        memory_mb: int = _MEMORY_MB,
        scratch: Path | None = None,
        until_ms: int | None = None,
        progress: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.views = choose(plan, names)
        self.as_of = AsOf(as_of)
        self._lake, self._precision, self._progress = lake_of(lake), plan.distinct_precision, progress
        self._scratch = Path(tempfile.mkdtemp(prefix="dealeriq-history-", dir=scratch))
        try:
            self._events = LakeEvents(
                self._lake,
                self.views,
                self._precision,
                arrival=self.as_of is AsOf.ARRIVAL,
                scratch=self._scratch,
                memory_mb=memory_mb,
                until_ms=until_ms,
            )
        except BaseException:
            shutil.rmtree(self._scratch, ignore_errors=True)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of what was read."""
        self._events.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    @property
    def columns(self) -> list[str]:
        """The columns that values have, `view__feature`."""
        return [column_name(view.name, each.name) for view in self.views for each in view.features]

    @property
    def origin(self) -> Origin:
        """What values come from."""
        return Origin(self._lake.url, str(self.as_of), dict(self._events.versions), self._events.positions())

    def latest_ms(self) -> int | None:
        """Return the latest event time of the topics that are read, or None where there is no event."""
        found = [self._events.latest(name) for name in self._events.versions]
        return max((each for each in found if each is not None), default=None)

    def of(self, frame: pa.Table, *, statuses: bool = False) -> pa.Table:
        """Return the frame with a column for each feature, null where there is no value, its rows in order.

        `frame` has the entity keys and `event_timestamp` (`features.history.rows`). `statuses` adds a column
        `view__feature__status` that says why each value is what it is. Raises EntityRowsError, LakeError.
        """
        rows = read_rows(frame, self.views, self.columns)
        out = frame
        for view in self.views:
            self._progress(f"{view.name}: {len(rows):,} rows")
            for name, column in self._view(view, rows, statuses):
                out = out.append_column(name, column)
        return out.replace_schema_metadata(
            {**(frame.schema.metadata or {}), METADATA_KEY: self.origin.to_json().encode()}
        )

    def _view(self, view: ViewPlan, rows: Rows, statuses: bool) -> Iterable[tuple[str, Any]]:
        entities, number = rows.entities(view.entity)
        order = np.lexsort((rows.time, number))
        number, time = number[order], rows.time[order]
        found = _Columns(view, len(rows))
        for first, events in self._events.chunks(view, entities):
            beyond = first + int(events.entity[-1]) + 1
            lo, hi = np.searchsorted(number, [first, beyond])
            windows = Windows(view, events, self._precision)
            for some, answers in windows.answer(number[lo:hi] - first, time[lo:hi]):
                found.put(order[lo:hi][some], answers)
        return found.arrays(statuses)


class _Columns:
    """The values of a view by row; a row that is never put is of an unknown entity."""

    def __init__(self, view: ViewPlan, rows: int) -> None:
        self._view = view
        kinds = {"long": np.int64, "double": np.float64}
        self._values = {each.name: np.zeros(rows, kinds[each.dtype]) for each in view.features}
        self._missing = {each.name: np.ones(rows, np.bool_) for each in view.features}
        widths = {each.window_ms for each in view.features}
        self._statuses = {width: np.full(rows, Status.UNKNOWN, np.uint8) for width in widths}

    def put(self, at: NDArray[np.int64], answers: Any) -> None:
        for each in self._view.features:
            self._values[each.name][at] = answers.values[each.name]
            self._missing[each.name][at] = answers.missing[each.name]
        for width, status in answers.statuses.items():
            self._statuses[width][at] = status

    def arrays(self, statuses: bool) -> Iterable[tuple[str, Any]]:
        names = pa.array([status.name for status in Status])
        for each in self._view.features:
            name = column_name(self._view.name, each.name)
            yield name, pa.array(self._values[each.name], mask=self._missing[each.name])
            if statuses:
                codes = pa.array(self._statuses[each.window_ms])
                yield f"{name}__status", pa.DictionaryArray.from_arrays(codes, names)
