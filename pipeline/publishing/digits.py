"""Numbers of the card: two significant digits, and more only where the interval is narrower than they can show."""

import math

from pipeline.results.interval import Interval

_MOST = 6


def in_two_digits(interval: Interval) -> str:
    """`0.71 (0.68 to 0.75)`: the value to two significant digits, or to the first digit of the interval's width."""
    places = max(_place(abs(interval.value)) + 1, _place(interval.high - interval.low))
    value, low, high = (_shown(number, places) for number in (interval.value, interval.low, interval.high))
    return f"{value} ({low} to {high})"


def _place(size: float) -> int:
    """The decimal place of the first significant digit: 0 for 7, 2 for 0.07, -1 for 70."""
    return -math.floor(math.log10(size)) if size > 0 else -_MOST


def _shown(number: float, places: int) -> str:
    text = f"{round(number, places):.{min(_MOST, max(0, places))}f}"
    # A rounded -0.00 is zero.
    return text.lstrip("-") if float(text) == 0 else text
