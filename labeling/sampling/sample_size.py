"""What a number of labels can tell: the smallest preference or difference of rates that it shows four times in five."""

import math
from collections.abc import Callable
from statistics import NormalDist

# The probability of seeing an effect that is there, by convention (Cohen, Statistical Power Analysis, 1988).
POWER = 0.8


def told_preference(pairs: int, level: float) -> float:
    """The smallest share of pairs that an arm wins, in [0.5, 1], which `pairs` answers tell from an even one.

    The normal approximation of a two-sided sign test; ties make it larger.
    """
    critical, power = _quantiles(level)

    def reached(share: float) -> bool:
        return (share - 0.5) * math.sqrt(pairs) >= critical / 2 + power * math.sqrt(share * (1 - share))

    return _smallest(reached, 0.5, 1)


def told_difference(labels: int, rate: float, level: float) -> float:
    """The smallest increase of a rate in [0, 1] that two arms of `labels` images each tell from none.

    The normal approximation of a two-sided test of independent rates; that arms show the same prompts and seeds makes
    it smaller.
    """
    critical, power = _quantiles(level)

    def reached(other: float) -> bool:
        mean = (rate + other) / 2
        noise = critical * math.sqrt(2 * mean * (1 - mean)) + power * math.sqrt(rate * (1 - rate) + other * (1 - other))
        return (other - rate) * math.sqrt(labels) >= noise

    return _smallest(reached, rate, 1) - rate


def worth_with_scores(labels: int, images: int, correlation: float) -> int:
    """How many labels alone tell as much as `labels` of `images` with scores that correlate with them.

    Scores leave the share 1 - correlation² of the variance to the labels: Var = Var(Y) [(1 - r²)(1/n - 1/N) + 1/N]
    (labeling/rates/ppi.py with the best lambda).
    """
    return round(1 / ((1 - correlation**2) * (1 / labels - 1 / images) + 1 / images))


def _quantiles(level: float) -> tuple[float, float]:
    normal = NormalDist()
    return normal.inv_cdf((1 + level) / 2), normal.inv_cdf(POWER)


def _smallest(reached: Callable[[float], bool], low: float, high: float) -> float:
    """Where `reached` becomes true on the way from `low` to `high`; `high` where it does not."""
    for _ in range(40):
        middle = (low + high) / 2
        if reached(middle):
            high = middle
        else:
            low = middle
    return high
