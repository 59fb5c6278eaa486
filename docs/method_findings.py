"""Sentences of docs/results.md on `study=methods`: which methods are more than CFG at their own effective scale."""

from collections.abc import Collection, Iterable

from eval.notation import quoted_percent
from pipeline.results.comparison import ChosenScale, Comparison
from pipeline.results.interval import Interval
from pipeline.results.metrics import metric
from pipeline.study.study import Study

# What is compared, whether more of it is better, and the words of the sentence.
_MEASURES = (("fd", False, "Fréchet distance"), ("recall", True, "recall"), ("vendi", True, "Vendi score"))


def _sign(difference: Interval) -> int:
    """1 or -1 where the interval excludes zero, on that side of it; else 0."""
    return (difference.low > 0) - (difference.high < 0)


def _names(arms: Iterable[str]) -> str:
    found = [f"`{arm}`" for arm in arms]
    return ", ".join(found) if found else "none"


def against_controls(chosen: Iterable[ChosenScale], retouched: Collection[str] = ()) -> list[str]:
    """For each measure, which methods differ from their controls. Arms that are `retouched` are left out."""
    paired = [one for one in chosen if one.against_control is not None and one.arm not in retouched]
    found = []
    for key, more_is_better, words in _MEASURES:
        signs = {one.arm: _sign(one.against_control[key]) for one in paired if one.against_control}
        better = [arm for arm, sign in signs.items() if sign == (1 if more_is_better else -1)]
        worse = [arm for arm, sign in signs.items() if sign == (-1 if more_is_better else 1)]
        alike = len(signs) - len(better) - len(worse)
        found.append(
            f"**{words[0].upper()}{words[1:]}**: {alike} of {len(signs)} methods cannot be told apart from CFG at "
            f"their own effective scale. Better than it: {_names(better)}. Worse: {_names(worse)}."
        )
    return found


def unlike_their_controls(study: Study, comparison: Comparison) -> list[str]:
    """Which methods differ from their controls in more than guidance: in steps, or in what a step does."""
    chosen = {one.arm for one in comparison.chosen if one.control is not None}
    steps = comparison.by_name(comparison.baseline).cost
    costs = {arm.arm: arm.cost for arm in comparison.arms if arm.arm in chosen and arm.control_of is None}
    once = [name for name, cost in costs.items() if cost and steps and cost.nfe_per_image <= steps.nfe_per_image]
    stepped = [name for name in costs if study.arm(name).step is not None]
    found = []
    if once:
        found.append(
            f"{_names(once)}: the network is evaluated once a step, so CFG at the same number of evaluations has half "
            "as many steps. That alone makes a control worse."
        )
    if stepped:
        found.append(
            f"{_names(stepped)}: guidance acts in what a step does, so the effective scale is not the strength, and "
            "the control is weaker."
        )
    return found


def _verdict(wins: Interval) -> str:
    if wins.low > 0.5:
        return "the score pays for colour"
    return "the score loses by colour" if wins.high < 0.5 else "no effect of colour can be told"


def paid_for_colour(comparison: Comparison, retouched: Iterable[str]) -> list[str]:
    """For each retouched arm and score, how often it beats its control, and how often once colour is taken out."""
    found = []
    for name in retouched:
        against = comparison.by_name(name).against_control
        if against is None:
            continue
        for score, wins in against.wins.items():
            said = f"`{name}` beats its control in {quoted_percent(wins)} of pairs by {metric(score).label}"
            if score in against.adjusted:
                said += f", adjusted for colour in {quoted_percent(against.adjusted[score])}"
            found.append(f"{said}: {_verdict(wins)}.")
    return found
