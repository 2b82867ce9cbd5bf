"""The 95 % t-interval of a mean over seeds, and from how many seeds on it is shown."""

import math
import statistics
from collections.abc import Sequence

from scipy.special import stdtrit

LEVEL = 0.95
"""Level of the confidence intervals."""
BARS, BAND = 3, 5
"""Number of seeds from which a mean has its interval, and from which intervals make a band."""


def half_width(values: Sequence[float]) -> float:
    """Return half the width of the 95 % t-interval of the mean, in the unit of `values`; nan for fewer than two."""
    n = len(values)
    if n < 2:
        return math.nan
    return float(stdtrit(n - 1, (1 + LEVEL) / 2)) * statistics.stdev(values) / math.sqrt(n)
