"""What the numbers say about each arm, in words; undecided where an interval leaves it open."""

from dataclasses import dataclass

from eval.report.notation import quoted
from pipeline.comparison import AgainstBaseline, ComparedArm, Comparison, Floor, Interval

UNDECIDED = "undecided"


@dataclass(frozen=True)
class Statement:
    """One answer about an arm: what was asked, the verdict, and the numbers behind it."""

    topic: str
    verdict: str
    numbers: str

    @property
    def decided(self) -> bool:
        return self.verdict != UNDECIDED


def verdict(interval: Interval, neutral: float, above: str, below: str) -> str:
    """`above` or `below` where the whole interval lies on that side of `neutral`, undecided where it contains it."""
    if interval.low > neutral:
        return above
    if interval.high < neutral:
        return below
    return UNDECIDED


def findings(comparison: Comparison) -> list[tuple[str, list[Statement]]]:
    """For each guided arm, in order, what the numbers say about it; undecided where an interval leaves it open."""
    baseline = comparison.by_name(comparison.baseline)
    return [(arm.arm, _statements(arm, against, baseline, comparison.floor)) for arm, against in comparison.guided]


def _statements(arm: ComparedArm, against: AgainstBaseline, baseline: ComparedArm, floor: Floor) -> list[Statement]:
    name = baseline.arm
    own, other = arm.scores["fd"], baseline.scores["fd"]
    # FD is never negative and grows as N shrinks, so the floor stands in for the zero of the other numbers.
    shifts = "shifts the distribution" if against.fd.low > floor.fd.high else UNDECIDED
    distance = UNDECIDED
    if own.high < other.low:
        distance = "closer to the reference set"
    elif own.low > other.high:
        distance = "farther from the reference set"
    return [
        Statement(
            "Shift",
            shifts,
            f"FD to {name} {quoted(against.fd)}, floor {quoted(floor.fd)}; "
            f"the drift of the mean is {against.mean_share:.0%} of it",
        ),
        Statement("Distance", distance, f"FD to the reference set {quoted(own)}, {name} {quoted(other)}"),
        Statement(
            "Spread",
            verdict(against.spread_ratio, 1, above="widens", below="contracts"),
            f"spread {quoted(against.spread_ratio)} times that of {name}",
        ),
        Statement(
            "Quality",
            verdict(against.aesthetic, 0, above="raises the aesthetic score", below="lowers the aesthetic score"),
            f"by {quoted(against.aesthetic, signed=True)} on a scale of 0 to 5",
        ),
        Statement(
            "Malformed",
            verdict(against.malformed, 0, above="more malformed pictures", below="fewer malformed pictures"),
            f"mean P(malformed) changes by {quoted(against.malformed, signed=True)}",
        ),
        Statement(
            "Prompt",
            verdict(against.clip_score, 0, above="follows the prompt more", below="follows the prompt less"),
            f"CLIP score changes by {quoted(against.clip_score, signed=True)}",
        ),
    ]
