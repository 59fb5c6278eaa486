"""Every method against plain CFG at the method's own effective scale: the same prompts, seeds and evaluations.

What an arm does beyond its control is not the scale's doing.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from eval.comparison.arm_measurements import COLOUR_COLUMNS, PAIRED_SCORES
from eval.comparison.halves import halves
from eval.comparison.paired_arms import ArmValues
from eval.distances.vendi import vendi_score
from eval.statistics.bootstrap import bounded, mean_interval, wilson_interval
from eval.statistics.jackknife import Replicates, replicates
from pipeline.results.comparison import AgainstControl
from pipeline.results.interval import Interval
from pipeline.results.metrics import metric
from pipeline.study.arm import Arm
from pipeline.study.study import Metrics

# Numbers of sets whose paired differences from the control are given, besides the Vendi score.
_SETS = ("precision", "recall")


@dataclass(frozen=True)
class Payment:
    """What a score pays for saturation and contrast: `slopes` [2, 2], a row for each half of the prompts.

    An image is judged by the slopes of the other half, so that a retouched arm is not judged by itself.
    """

    slopes: Tensor

    def __call__(self, difference: Tensor, prompts: Tensor) -> Tensor:
        """The part [N] of a score's difference that goes with a `difference` [N, 2] of saturation and contrast."""
        first, second = halves(prompts)
        paid = torch.zeros(len(difference), dtype=torch.float64)
        paid[first], paid[second] = difference[first] @ self.slopes[1], difference[second] @ self.slopes[0]
        return paid


def against_control(
    name: str,
    arm: Arm,
    arms: Mapping[str, ArmValues],
    found: Mapping[str, Mapping[str, Replicates]],
    prompts: Tensor,
    kept: list[Tensor],
    settings: Metrics,
    paid: Mapping[str, Payment],
) -> AgainstControl:
    """The arm that the control `arm`, called `name`, follows, compared with it.

    `arms` have features of the primary space and per-image scores, `found` their numbers without each group of pairs,
    `paid` is what each score pays for colour, empty where the study cannot tell.
    """
    assert arm.control is not None
    ours, control = arms[arm.control.of], arms[name]
    mine, base = found[arm.control.of], found[name]
    clusters = prompts if len(torch.unique(prompts)) < len(prompts) else None
    columns = judging_columns(settings)
    vendi = vendi_replicates(ours.features, kept) - vendi_replicates(control.features, kept)
    return AgainstControl(
        control=name,
        wins={
            score: win_rate(ours.scores[column], control.scores[column], _higher(score), clusters, settings)
            for score, column in columns.items()
        },
        adjusted={
            score: win_rate(
                ours.scores[columns[score]] - paid[score](colour(ours) - colour(control), prompts),
                control.scores[columns[score]],
                _higher(score),
                clusters,
                settings,
            )
            for score in paid
        },
        fd=(mine["fd_for_differences"] - base["fd_for_differences"]).interval(settings.level),
        vendi=vendi.interval(settings.level),
        **{key: (mine[key] - base[key]).interval(settings.level) for key in _SETS},
    )


def judging_columns(settings: Metrics) -> dict[str, str]:
    """The per-image columns of the scores that have a good end, by the score's name."""
    columns = {score: column for score, column in PAIRED_SCORES.items() if metric(score).better is not None}
    return columns | {score: score for score in settings.scorers}


def colour(arm: ArmValues) -> Tensor:
    """Saturation and contrast [N, 2] of an arm's images."""
    return torch.stack([arm.scores[column] for column in COLOUR_COLUMNS], 1)


def payments(
    arms: Mapping[str, Arm], values: Mapping[str, ArmValues], prompts: Tensor, settings: Metrics
) -> dict[str, Payment]:
    """What each score pays for colour, from the retouched arms and their controls; empty where there are none.

    The two differ in nothing but saturation and contrast. Least squares through the origin, on each half of the
    prompts.
    """
    pairs = [(own.control.of, name) for name, own in arms.items() if own.control and arms[own.control.of].retouch]
    if not pairs:
        return {}
    found = {}
    for score, column in judging_columns(settings).items():
        slopes = []
        for half in halves(prompts):
            moved = torch.cat([(colour(values[ours]) - colour(values[theirs]))[half] for ours, theirs in pairs])
            gained = torch.cat(
                [(values[ours].scores[column] - values[theirs].scores[column])[half] for ours, theirs in pairs]
            )
            known = gained.isfinite()
            slopes.append(torch.linalg.lstsq(moved[known], gained[known, None], driver="gelsd").solution[:, 0])
        found[score] = Payment(torch.stack(slopes))
    return found


def _higher(score: str) -> bool:
    try:
        return metric(score).better != "lower"
    except ValueError:  # a learned score of the study's own
        return True


def win_rate(ours: Tensor, theirs: Tensor, higher: bool, clusters: Tensor | None, settings: Metrics) -> Interval:
    """How often an image [N] scores better than its pair; ties count half. 0.5 means no difference.

    Images without a score, NaN, are left out. The interval is over images, or over `clusters` [N] of them.
    """
    known = ours.isfinite() & theirs.isfinite()
    difference = (ours - theirs)[known] * (1 if higher else -1)
    won = (difference > 0).double() + (difference == 0).double() / 2
    if bool((won == won[0]).all()) and float(won[0]) in (0, 1):
        return wilson_interval(int(won.sum()), len(won), settings.level)
    among = None if clusters is None else clusters[known]
    return bounded(mean_interval(won, settings.resamples, settings.level, settings.seed, among), 0, 1)


def vendi_replicates(features: Tensor, kept: list[Tensor]) -> Replicates:
    """The Vendi score of features [N, D] with and without each group of pairs."""
    return replicates(lambda index: {"vendi": vendi_score(features[index])}, len(features), kept)["vendi"]
