"""The rule that turns a number with its interval into an answer: `above 0`, `below 0`, `from -1 to 1`, `equals 1`."""

import math
import re
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any

from pydantic import BeforeValidator

from pipeline.results.interval import Interval

_NUMBER = r"[+-]?\d+(?:\.\d+)?"
_RULE = re.compile(
    rf"(?P<side>above|below)(?: (?P<bound>{_NUMBER}))?|(?P<equals>equals|differs from) (?P<value>{_NUMBER})"
    rf"|from (?P<low>{_NUMBER}) to (?P<high>{_NUMBER})"
)
# Of what is computed and not measured, rounding of double precision.
_ROUNDING = 1e-9


class Outcome(Enum):
    """What a rule says about a number."""

    HELD = "held"
    FAILED = "failed"
    OPEN = "open"


@dataclass(frozen=True)
class Rule:
    """What a number has to be for its claim to hold.

    Its whole interval has to lie in [`low`, `high`]; the claim fails where none of it does, and is open otherwise.
    `complement`: it has to lie outside. `against` is the side of another number that it has to lie on, `above` or
    `below`, where a rule has no bound.
    """

    low: float = -math.inf
    high: float = math.inf
    complement: bool = False
    against: str = ""

    def __call__(self, number: Interval, other: Interval | None = None) -> Outcome:
        """The outcome for a number, and for another one where the rule is against it. Raises ValueError without it."""
        if self.against:
            if other is None:
                raise ValueError(f"rule '{self.against}' needs another number")
            first, second = (number, other) if self.against == "above" else (other, number)
            if first.low > second.high:
                return Outcome.HELD
            return Outcome.FAILED if first.high < second.low else Outcome.OPEN
        inside = self.low <= number.low and number.high <= self.high
        outside = number.high < self.low or number.low > self.high
        if self.complement:
            inside, outside = outside, inside
        return Outcome.HELD if inside else Outcome.FAILED if outside else Outcome.OPEN


def parse_rule(text: Any) -> Rule:
    """A rule as a claim writes it. Raises ValueError."""
    if isinstance(text, Rule):
        return text
    found = _RULE.fullmatch(str(text))
    if found is None:
        raise ValueError(
            f"rule '{text}' is unknown; write 'above 0', 'below 0', 'from -1 to 1', 'equals 1', 'differs from 1', or "
            "'above' or 'below' for a claim against another number"
        )
    if found["side"] and found["bound"] is None:
        return Rule(against=found["side"])
    if found["side"]:
        # A bound itself is not above or below it.
        bound = float(found["bound"])
        return (
            Rule(low=math.nextafter(bound, math.inf))
            if found["side"] == "above"
            else Rule(high=math.nextafter(bound, -math.inf))
        )
    if found["equals"]:
        value = float(found["value"])
        room = _ROUNDING * max(1.0, abs(value))
        return Rule(value - room, value + room, complement=found["equals"] != "equals")
    return Rule(float(found["low"]), float(found["high"]))


Holds = Annotated[Rule, BeforeValidator(parse_rule)]
