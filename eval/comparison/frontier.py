"""What a method trades for what over its sweep of scales, so that methods are compared at matched strength.

A frontier is the path of a method's arms in order of their scale, joined by straight lines.
"""

from collections.abc import Sequence


def value_at(x: Sequence[float], y: Sequence[float], level: float) -> float | None:
    """y where the path of points (x, y), in order of scale, first reaches x = level; None where it never does.

    Raises ValueError for unequally many coordinates and for fewer than 2 points.
    """
    if len(x) != len(y) or len(x) < 2:
        raise ValueError(f"a frontier needs at least 2 points with both coordinates, found {len(x)} and {len(y)}")
    for k in range(len(x) - 1):
        low, high = sorted((x[k], x[k + 1]))
        if low <= level <= high:
            if low == high:
                return y[k]
            share = (level - x[k]) / (x[k + 1] - x[k])
            return y[k] + share * (y[k + 1] - y[k])
    return None


def dominated_area(x: Sequence[float], y: Sequence[float]) -> float:
    """The area of all (a, b) >= 0 that some point dominates (a <= x and b <= y), for coordinates where more is better.

    The hypervolume indicator of Zitzler and Thiele (1999) with the origin as reference point; for precision and recall
    it is in [0, 1].
    Raises ValueError for negative coordinates and for unequally many.
    """
    if len(x) != len(y):
        raise ValueError(f"a frontier needs both coordinates of each point, found {len(x)} and {len(y)}")
    if min(*x, *y) < 0:
        raise ValueError(f"areas under a frontier need coordinates of at least 0, found {min(*x, *y)}")
    area, reached = 0.0, 0.0
    # From the right: a point adds what lies above those that reach farther.
    for right, height in sorted(zip(x, y, strict=True), reverse=True):
        if height > reached:
            area += right * (height - reached)
            reached = height
    return area
