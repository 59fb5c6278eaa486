"""Shift, spread, distance and variety of every arm in one feature space, and what this many images can show there."""

import math
import sys
from collections.abc import Mapping
from typing import Any

import torch
from scipy import stats
from torch import Tensor

from eval.comparison.paired_arms import ArmValues, arm_replicates
from eval.distances.frechet import FrechetTo, frechet_distance
from eval.distances.two_sample_mmd import paired_mmd_test
from eval.features.spaces import Space
from eval.statistics.bootstrap import bounded, statistic_interval
from eval.statistics.holm import holm_by_question
from eval.statistics.jackknife import Replicates, combined
from pipeline.results.interval import Interval
from pipeline.results.metrics import metric
from pipeline.study.study import Metrics

# What is asked in every space: the field of InSpace, and the metric that has the question.
QUESTIONS = {"shift": "shift_fd", "spread_ratio": "shift_spread_ratio", "distance": "fd", "variety": "recall"}
# How often a detectable difference is decided.
POWER = 0.8
# Enough for the mean and the variance of what exchanged pairs give.
_EXCHANGES = 200


def floors(reference: Tensor, n: int, settings: Metrics) -> dict[str, Interval]:
    """The record Floor of real images: what the first `n` of them [M, D] have as distance from the others, and from as
    many of them."""

    def floor(others: Tensor) -> Interval:
        to_others = FrechetTo(others).of_subsets(reference[:n])
        return statistic_interval(to_others, n, settings.resamples, settings.level, settings.seed)

    return {"fd": floor(reference[n:]), "between_sets": floor(reference[n : 2 * n])}


def in_space(
    vectors: Mapping[str, Tensor],
    baseline: str,
    found: Mapping[str, Mapping[str, Replicates]],
    prompts: Tensor,
    settings: Metrics,
    permuted: int,
    reseeded: str | None = None,
) -> dict[str, dict[str, Any]]:
    """The record InSpace of every arm but the baseline.

    `vectors` [N, D] are those of the paired arms in this space, `found` what `arm_replicates` makes of them and of the
    arm `reseeded`, the baseline from other seeds; `prompts` [N] are the numbers of the pairs' prompts.
    """
    base, start = vectors[baseline], found[baseline]
    guided = [name for name in vectors if name != baseline]
    # The first that Holm's procedure looks at has to be so much below 1 - level.
    alpha = (1 - settings.level) / max(1, len(guided))
    asked = {field: metric(name).asked.key for field, name in QUESTIONS.items()}
    content: dict[str, dict[str, Any]] = {}
    for name in guided:
        own = found[name]
        distance = own["fd_for_differences"] - start["fd_for_differences"]
        variety = own["recall"] - start["recall"]
        spread = combined(_log, own["shift_spread_ratio"])
        seen = exchanged_shift(vectors[name], base, prompts, settings.seed, alpha)
        seen += float(stats.norm.ppf(POWER)) * own["shift_fd"].standard_error
        beyond = None
        if reseeded is not None:
            # The prompts of both distances are the same, so they are left out of both together.
            beyond = own["shift_fd"] - found[reseeded]["shift_fd"]
            seen = max(seen, found[reseeded]["shift_fd"].value + detectable(beyond, 1 - settings.level))
        content[name] = {
            "shift": bounded(own["shift_fd"].interval(settings.level), 0),
            "drift": bounded(own["shift_drift"].interval(settings.level), 0),
            "spread_ratio": bounded(own["shift_spread_ratio"].interval(settings.level), 0),
            "distance": distance.interval(settings.level),
            "variety": variety.interval(settings.level),
            "detectable": {
                asked["shift"]: seen,
                asked["spread_ratio"]: math.exp(detectable(spread, alpha)),
                asked["distance"]: detectable(distance, alpha),
                asked["variety"]: detectable(variety, alpha),
            },
            "beyond_floor": None if beyond is None else beyond.interval(settings.level),
        }
    adjusted = holm_by_question(
        {name: p_values(vectors[name], base, found[name], start, prompts, settings.seed, permuted) for name in guided}
    )
    return {name: {**own, "adjusted_p": adjusted[name]} for name, own in content.items()}


def p_values(
    ours: Tensor,
    theirs: Tensor,
    found: Mapping[str, Replicates],
    base: Mapping[str, Replicates],
    prompts: Tensor,
    seed: int,
    permuted: int,
) -> dict[str, float]:
    """The p-values by question of an arm [N, D] against the baseline [N, D], before any correction."""
    differences = {
        "shift_fd": paired_mmd_test(ours, theirs, permuted, seed, prompts).p,
        # Of the logarithm, so that it does not matter which arm is the baseline.
        "shift_spread_ratio": combined(_log, found["shift_spread_ratio"]).p_value(),
        "fd": (found["fd_for_differences"] - base["fd_for_differences"]).p_value(),
        "recall": (found["recall"] - base["recall"]).p_value(),
    }
    return {metric(name).asked.key: p for name, p in differences.items()}


def detectable(found: Replicates, alpha: float) -> float:
    """The smallest difference from the neutral value that a two-sided test at `alpha` decides with chance POWER."""
    return float(stats.t.isf(alpha / 2, found.degrees) + stats.t.ppf(POWER, found.degrees)) * found.standard_error


def exchanged_shift(x: Tensor, y: Tensor, prompts: Tensor, seed: int, alpha: float) -> float:
    """The Fréchet distance that x [N, D] and y [N, D] exceed with chance `alpha` when their pairs are exchanged by
    chance, those of one prompt together: what two arms have between them that differ in nothing.

    A sum of squares, whose tail is that of the gamma distribution with its mean and variance.
    """
    _, member = torch.unique(prompts, return_inverse=True)
    generator = torch.Generator().manual_seed(seed)
    distances = []
    for _ in range(_EXCHANGES):
        swapped = (torch.rand(int(member.max()) + 1, generator=generator) < 0.5)[member][:, None]
        distances.append(frechet_distance(torch.where(swapped, y, x), torch.where(swapped, x, y)))
    found = torch.tensor(distances, dtype=torch.float64)
    mean, variance = float(found.mean()), float(found.var())
    return mean if variance <= 0 else float(stats.gamma.isf(alpha, mean**2 / variance, scale=variance / mean))


def space_replicates(
    space: Space, arms: Mapping[str, Tensor], baseline: str, settings: Metrics, kept: list[Tensor]
) -> dict[str, dict[str, Replicates]]:
    """The replicates of every arm's vectors in a space that no per-image score is compared in."""
    values = {name: ArmValues(vectors.double(), {}) for name, vectors in arms.items()}
    return arm_replicates(values, baseline, space.reference, settings.precision_recall_k, kept, space.name)


def _log(ratio: float) -> float:
    # An arm of one image over and over has no spread at all.
    return math.log(max(ratio, sys.float_info.min))
