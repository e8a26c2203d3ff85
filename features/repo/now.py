"""The values of each view at a moment, for the plain Feast SDK: the reader's merge, run on demand.

A request gives `now_ms`. Ask with `full_feature_names=True`: views share feature names such as `count_1h`.
"""

from collections.abc import Callable
from typing import Any

from feast import Field, OnDemandFeatureView, RequestSource, StreamFeatureView
from feast.types import Float64, Int64

from features.repo.views import VIEWS
from features.view_compiler import compile_view

clock = RequestSource(
    name="clock",
    schema=[Field(name="now_ms", dtype=Int64)],
    description="The moment that the windows reach, ms since the epoch, event time.",
)


def _merge_of(view: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def merge(inputs: dict[str, Any]) -> dict[str, Any]:
        from features.on_demand import columns  # Feast ships this function alone: it must bring its imports

        tiles = inputs[f"{view}__tiles"] if f"{view}__tiles" in inputs else inputs["tiles"]
        values = columns(view, tiles, inputs["now_ms"])
        # Of a Python function's answers Feast 0.67 picks those named as asked for, so each has both names.
        return values | {f"{view}_now__{name}": column for name, column in values.items()}

    merge.__module__ = "__main__"  # dill would otherwise store a reference that needs Feast's repository
    return merge


def _now(view: StreamFeatureView) -> OnDemandFeatureView:
    dtypes = {"long": Int64, "double": Float64}
    return OnDemandFeatureView(
        name=f"{view.name}_now",
        sources=[view, clock],
        schema=[Field(name=each.name, dtype=dtypes[each.dtype]) for each in compile_view(view).features],
        mode="python",
        udf=_merge_of(view.name),
        udf_string="features.on_demand.columns",
    )


NOW = {view.name: _now(view) for view in VIEWS}
"""The on-demand view of each stream feature view."""
