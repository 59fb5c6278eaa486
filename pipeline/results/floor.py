"""The floor that shifts are counted in: how far apart two sets lie that differ in nothing anybody asked about.

It is the distance of the baseline from itself with other seeds where the study has such a set, and of two disjoint sets
of real images elsewhere; always of as many images as an arm has.
"""

from pipeline.results.comparison import AgainstBaseline, Comparison, InSpace
from pipeline.results.interval import Interval


def floors(comparison: Comparison, against: AgainstBaseline) -> dict[str, Interval]:
    """The shift in every feature space, in floors. A space whose floor is 0 is left out."""
    units = {space.name: space.floor.shift.value for space in comparison.spaces}
    return {
        name: Interval(own.shift.value / unit, own.shift.low / unit, own.shift.high / unit, own.shift.n)
        for name, own in against.spaces.items()
        if (unit := units.get(name, 0)) > 0
    }


def is_shift(own: InSpace, alpha: float) -> bool:
    """Whether an arm has left the baseline in a space: by more than its pairs give by chance, at the level `alpha`, and
    by more than other seeds do, where the study has a set of them.

    A test over pairs decides shifts that are much smaller than the difference between two sets of one arm, which no
    one would see without the pairs.
    """
    return own.adjusted_p["shift"] < alpha and (own.beyond_floor is None or own.beyond_floor.low > 0)


def has_other_seeds(comparison: Comparison) -> bool:
    """Whether shifts are counted in the distance of other seeds."""
    return comparison.floor.other_seeds is not None


def floor_between(comparison: Comparison) -> str:
    """The two sets whose distance is one floor, in words: `two sets of 192 images of unguided from different seeds`."""
    n = comparison.by_name(comparison.baseline).n
    if has_other_seeds(comparison):
        return f"two sets of {n} images of {comparison.baseline} from different seeds"
    return f"two disjoint sets of {n} real images"
