"""How the report writes numbers and intervals."""

import math
from collections.abc import Iterable

from pipeline.results.interval import Interval


def decimals(values: Iterable[float]) -> int:
    """How many decimals, at most 4, show 3 digits of the largest value and 2 of the smallest."""
    sizes = [abs(value) for value in values if value]
    if not sizes:
        return 2
    largest, smallest = (math.floor(math.log10(size)) for size in (max(sizes), min(sizes)))
    return min(4, max(0, 2 - largest, 1 - smallest))


def number(value: float, places: int, signed: bool = False) -> str:
    """A number with a real minus sign; `signed` also shows the plus, for differences."""
    text = f"{value:{'+' if signed else ''}.{places}f}"
    # A rounded -0.00 is zero.
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}")


def span(interval: Interval, places: int, signed: bool = False) -> str:
    """The interval's ends: `0.80` dash `0.83`, or `-0.10 to +0.20` where a dash would look like a sign."""
    low, high = number(interval.low, places, signed), number(interval.high, places, signed)
    return f"{low}\N{EN DASH}{high}" if interval.low >= 0 and not signed else f"{low} to {high}"


def quoted(interval: Interval, signed: bool = False) -> str:
    places = decimals([max(abs(interval.value), abs(interval.low), abs(interval.high))])
    return f"{number(interval.value, places, signed)} ({span(interval, places, signed)})"


def count(many: int) -> str:
    """A number of things, `1,728`."""
    return f"{many:,}"


def percent(share: float, places: int = 0) -> str:
    """A share in per cent, `48 %`."""
    return f"{number(100 * share, places)} %"


def in_percent(share: Interval) -> Interval:
    """A share, or a difference of shares, times 100."""
    return Interval(100 * share.value, 100 * share.low, 100 * share.high, share.n)


def quoted_percent(share: Interval, places: int = 0) -> str:
    """A share with its interval in per cent, `48 % (46` dash `50)`."""
    return f"{percent(share.value, places)} ({span(in_percent(share), places)})"


def quoted_points(difference: Interval, places: int = 1) -> str:
    """A difference of shares with its interval in percentage points, `+1.2 points (+0.3 to +2.1)`."""
    points = in_percent(difference)
    return f"{number(points.value, places, signed=True)} points ({span(points, places, signed=True)})"


def p_value(value: float) -> str:
    """A p-value with two significant digits, or `below 0.001`."""
    return "below 0.001" if value < 0.001 else number(value, 3 if value < 0.1 else 2)
