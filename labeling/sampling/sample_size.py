"""How many labels an interval of a wanted width takes."""

import math

from eval.statistics.wilson import wilson_bounds


def labels_needed(width: float, rate: float, level: float) -> int:
    """The fewest labels whose Wilson interval around `rate` in [0, 1] is at most `width` wide (high minus low)."""
    # The width falls with n: double, then bisect.
    low, high = 1, 2
    while _width(rate, high, level) > width:
        low, high = high, 2 * high
    while low < high:
        middle = (low + high) // 2
        if _width(rate, middle, level) > width:
            low = middle + 1
        else:
            high = middle
    return low


def labels_needed_with_scores(needed: int, images: int, correlation: float) -> int:
    """The labels that prediction-powered inference takes where a random sample takes `needed`.

    Scores that correlate with the labels by `correlation` among `images` scored ones leave the share
    1 - correlation² of the variance to the labels: Var = Var(Y) [(1 - r²)(1/n - 1/N) + 1/N]
    (labeling/rates/ppi.py with the best lambda), solved for n at the variance Var(Y) / needed.
    """
    unexplained = 1 - correlation**2
    spared = 1 / needed - correlation**2 / images
    if spared <= 0:
        return images
    return min(needed, images, math.ceil(unexplained / spared))


def _width(rate: float, n: int, level: float) -> float:
    low, high = wilson_bounds(rate, n, level)
    return high - low
