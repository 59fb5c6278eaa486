"""Every method against plain CFG at the method's own effective scale: the same prompts, seeds and evaluations.

What an arm does beyond its control is not the scale's doing.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from eval.comparison.arm_measurements import PAIRED_SCORES
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


def against_control(
    name: str,
    arm: Arm,
    arms: Mapping[str, ArmValues],
    found: Mapping[str, Mapping[str, Replicates]],
    prompts: Tensor,
    kept: list[Tensor],
    settings: Metrics,
) -> AgainstControl:
    """The arm that the control `arm`, called `name`, follows, compared with it.

    `arms` have features of the primary space and per-image scores, `found` their numbers without each group of pairs.
    Raises ValueError for arms that are no pairs.
    """
    assert arm.control is not None
    ours, control = arms[arm.control.of], arms[name]
    mine, base = found[arm.control.of], found[name]
    clusters = prompts if len(torch.unique(prompts)) < len(prompts) else None
    columns = {score: column for score, column in PAIRED_SCORES.items() if metric(score).better is not None}
    columns |= {score: score for score in settings.scorers}
    vendi = vendi_replicates(ours.features, kept) - vendi_replicates(control.features, kept)
    return AgainstControl(
        control=name,
        wins={
            score: win_rate(ours.scores[column], control.scores[column], _higher(score), clusters, settings)
            for score, column in columns.items()
        },
        fd=(mine["fd_for_differences"] - base["fd_for_differences"]).interval(settings.level),
        vendi=vendi.interval(settings.level),
        **{key: (mine[key] - base[key]).interval(settings.level) for key in _SETS},
    )


def _higher(score: str) -> bool:
    try:
        return metric(score).better != "lower"
    except ValueError:  # a learned score of the study's own
        return True


def win_rate(ours: Tensor, theirs: Tensor, higher: bool, clusters: Tensor | None, settings: Metrics) -> Interval:
    """How often an image [N] scores better than its pair; ties count half. 0.5 is no difference.

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
