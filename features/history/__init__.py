"""Point-in-time history: the compiled plan over the lake, at any past moment.

A row's value is what the online reader gives at its time, from the same windows: `features.merge.window` says
where each begins, and no event later than the row's time is ever in one.
"""

from features.history.point_in_time import METADATA_KEY, AsOf, History, Origin
from features.history.rows import TIME_COLUMN, EntityRowsError
from features.history.selection import UnknownFeatureError, choose, column_name

__all__ = [
    "METADATA_KEY",
    "TIME_COLUMN",
    "AsOf",
    "EntityRowsError",
    "History",
    "Origin",
    "UnknownFeatureError",
    "choose",
    "column_name",
]
