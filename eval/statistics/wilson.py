"""Wilson's score interval of a rate."""

import math
from statistics import NormalDist


def wilson_bounds(rate: float, n: float, level: float) -> tuple[float, float]:
    """Low and high end, inside [0, 1], of the interval of a `rate` in [0, 1] seen in `n` trials (Wilson, 1927).

    `n` may be the effective number of trials of a weighted or score-assisted estimate, which need not be a whole
    number.
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    centre = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    half_width = z / (1 + z**2 / n) * math.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2))
    # At the rates 0 and 1 one end is the rate itself, but for rounding.
    low = 0.0 if rate == 0 else centre - half_width
    high = 1.0 if rate == 1 else centre + half_width
    return low, high
