"""Public holidays as days since the epoch, for the years around a training set."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["holiday_days"]

_YEARS_AHEAD = 5  # a model that is served longer than this forgets holidays, and says so by its calendar


def holiday_days(
    time_ms: NDArray[np.int64], country: str = "US", subdivision: str | None = None
) -> tuple[int, ...]:
    """Return the days of public holidays (of the `holidays` package) from the first row's year to five
    after.
    """
    import holidays

    years = time_ms.astype("datetime64[ms]").astype("datetime64[Y]").astype(int) + 1970
    calendar: Any = holidays.country_holidays(
        country, subdiv=subdivision, years=range(int(years.min()), int(years.max()) + _YEARS_AHEAD + 1)
    )
    return tuple(sorted(int(np.datetime64(day).astype("datetime64[D]").astype(int)) for day in calendar))
