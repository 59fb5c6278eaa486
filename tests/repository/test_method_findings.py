"""What docs/results.md says of methods against their controls follows the intervals."""

from docs.method_findings import against_controls
from pipeline.results.comparison import ChosenScale
from pipeline.results.interval import Interval

BELOW, ACROSS, ABOVE = (Interval(value, value - 0.1, value + 0.1, 64) for value in (-0.2, 0.05, 0.3))


def chosen(arm: str, fd: Interval, recall: Interval, vendi: Interval, control: bool = True) -> ChosenScale:
    differences = {"fd": fd, "recall": recall, "vendi": vendi}
    return ChosenScale(
        family=arm,
        arm=arm,
        scale=2.0,
        candidates={arm: 1.0},
        fd=ABOVE,
        against_baseline=differences,
        control=f"{arm}@cfg" if control else None,
        against_control=differences if control else None,
    )


def test_a_lower_distance_and_more_variety_are_better_than_the_control() -> None:
    fd, recall, vendi = against_controls(
        [
            chosen("cads", BELOW, ABOVE, ABOVE),
            chosen("sld", ABOVE, BELOW, ACROSS),
            chosen("slg", ACROSS, ACROSS, ACROSS),
            chosen("cfg", BELOW, BELOW, BELOW, control=False),
        ]
    )
    assert fd == (
        "**Fréchet distance**: 1 of 3 methods cannot be told apart from CFG at their own effective scale. "
        "Better than it: `cads`. Worse: `sld`."
    )
    assert recall.endswith("Better than it: `cads`. Worse: `sld`.")
    assert vendi.startswith("**Vendi score**: 2 of 3 methods")
    assert vendi.endswith("Better than it: `cads`. Worse: none.")
