"""Feast's offline store over the lake: `get_historical_features` of the plain SDK, with this history's values.

In `feature_store.yaml`:

    offline_store:
      type: features.history.offline_store.LakeOfflineStore
      lake: /data/lake            # a folder, or s3://bucket/prefix
      storage_options: {}         # deltalake's, for an object store

Ask for the on-demand views (`dealer_orders_now:count_1h`, or a feature service). Feast would run their function
over tiles, row by row; here the values come from the lake at once, and are the same. This module imports Feast:
nothing else in `features/history` does.
"""

from __future__ import annotations

from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from feast.infra.offline_stores.dask import DaskOfflineStore, DaskOfflineStoreConfig
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from pydantic import Field

from connectors.lake import Lake
from features.history.point_in_time import AsOf, History
from features.history.rows import TIME_COLUMN, EntityRowsError
from features.history.selection import UnknownFeatureError, column_name
from features.plan import load

__all__ = ["LakeOfflineStore", "LakeOfflineStoreConfig", "LakeRetrievalJob"]

_NOW = "now_ms"  # the request source of the on-demand views
_SUFFIX = "_now"


class LakeOfflineStoreConfig(DaskOfflineStoreConfig):  # type: ignore[misc]
    """Where the lake is."""

    type: Literal["features.history.offline_store.LakeOfflineStore"] = (
        "features.history.offline_store.LakeOfflineStore"
    )
    lake: str
    storage_options: dict[str, str] = Field(default_factory=dict, repr=False)
    memory_mb: int = 768


class LakeOfflineStore(DaskOfflineStore):  # type: ignore[misc]
    """Feast's own store for files, but historical features come from the lake."""

    @staticmethod
    def get_historical_features(
        config: Any,
        feature_views: list[Any],
        feature_refs: list[str],
        entity_df: Any,
        registry: Any,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
        **kwargs: Any,
    ) -> RetrievalJob:
        """Return a job that gives the features of on-demand views at each row's time.

        `filter_by_created_timestamp` leaves out what had not come by then. Raises EntityRowsError for rows that
        cannot be read and UnknownFeatureError for a feature that is no value.
        """
        if entity_df is None or isinstance(entity_df, str):
            raise EntityRowsError(
                "history needs a frame of entities and times, not a query or a range of dates"
            )
        asked = [ref.split(":", 1) for ref in feature_refs]
        wanted = [(view.removesuffix(_SUFFIX), name) for view, name in asked if view.endswith(_SUFFIX)]
        if not wanted:
            raise UnknownFeatureError(
                f"{', '.join(feature_refs)}: history gives values, not tiles",
                remedy=f"Ask for the features of the on-demand views, such as dealer_orders{_SUFFIX}:count_1h.",
            )
        as_of = AsOf.ARRIVAL if filter_by_created_timestamp else AsOf.EVENT
        return LakeRetrievalJob(config.offline_store, entity_df, wanted, as_of, full_feature_names)


class LakeRetrievalJob(RetrievalJob):  # type: ignore[misc]
    """Computes when it is asked for a table."""

    def __init__(
        self,
        config: LakeOfflineStoreConfig,
        entity_df: Any,
        wanted: list[tuple[str, str]],
        as_of: AsOf,
        full_feature_names: bool,
    ) -> None:
        self._config, self._entities, self._wanted = config, entity_df, wanted
        self._as_of, self._full = as_of, full_feature_names

    @property
    def full_feature_names(self) -> bool:
        """Whether columns carry the view's name."""
        return self._full

    @property
    def on_demand_feature_views(self) -> list[Any]:
        """None for Feast to run: the job gives their features itself."""
        return []

    @property
    def metadata(self) -> RetrievalMetadata:
        """What the job gives."""
        times = self._entities.get(TIME_COLUMN)
        return RetrievalMetadata(
            features=[f"{view}{_SUFFIX}:{name}" for view, name in self._wanted],
            keys=[name for name in self._entities.columns if name != TIME_COLUMN],
            min_event_timestamp=None if times is None else times.min(),
            max_event_timestamp=None if times is None else times.max(),
        )

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        frame = pa.Table.from_pandas(self._entities, preserve_index=False)
        _same_moment(frame)
        names = [f"{view}.{name}" for view, name in self._wanted]
        lake = Lake(self._config.lake, self._config.storage_options)
        with History(load(), names, lake, as_of=self._as_of, memory_mb=self._config.memory_mb) as history:
            found = history.of(frame)
        out = frame
        for view, name in self._wanted:
            column = f"{view}{_SUFFIX}__{name}" if self._full else name
            out = out.append_column(column, found[column_name(view, name)])
        return out.replace_schema_metadata({**(frame.schema.metadata or {}), **found.schema.metadata})

    def _to_df_internal(self, timeout: int | None = None) -> Any:
        return self._to_arrow_internal(timeout).to_pandas()


def _same_moment(frame: pa.Table) -> None:
    """Refuse a `now_ms` that is not its row's time: the window would reach beyond what the row may see."""
    if _NOW not in frame.column_names or TIME_COLUMN not in frame.column_names:
        return
    times = frame[TIME_COLUMN]
    if pa.types.is_timestamp(times.type):
        times = (
            pc.floor_temporal(times, unit="millisecond")
            .cast(pa.timestamp("ms", times.type.tz))
            .cast(pa.int64())
        )
    if not pc.all(pc.equal(times, frame[_NOW])).as_py():
        raise EntityRowsError(
            f"{_NOW} is not {TIME_COLUMN} in ms in every row",
            remedy=f"Set {_NOW} from {TIME_COLUMN}: a row sees what there was at its moment.",
        )
