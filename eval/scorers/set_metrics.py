"""The set metrics of one arm in one feature space: computed, and given an interval, as their rows of the table say."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from eval.distances.frechet import FrechetTo
from eval.distances.neighbour_deletions import deleted_recall_and_coverage
from eval.distances.neighbours import neighbour_metrics
from eval.statistics.bootstrap import bounded, mean_interval, statistic_interval, wilson_interval
from eval.statistics.jackknife import GROUPS, deletion_groups
from pipeline.results.interval import Interval
from pipeline.results.metrics import Metric, of_level
from pipeline.study.study import Metrics

# In every feature space, in that of the study's CLIP, and in the primary one alone. A number without an interval is no
# score (arm_scores.py).
EVERYWHERE = [row for row in of_level("set") if row.every_space]
OF_CLIP = [row for row in of_level("set") if row.of_clip]
PRIMARY_ALONE = [row for row in of_level("set") if not (row.every_space or row.of_clip) and row.interval]


def loaded(row: Metric) -> Callable[..., Any]:
    """The function that a row names."""
    module, name = row.compute.split(":")
    function: Callable[..., Any] = getattr(import_module(module), name)
    return function


def set_metrics(
    rows: Iterable[Metric], arm: Tensor, reference: Tensor, settings: Metrics, clusters: Tensor | None = None
) -> dict[str, Interval]:
    """The metrics of `rows` of vectors [N, D] against the reference's [M, D], in their order, by name.

    Their intervals are over images, or over the `clusters` [N] of them. Raises ValueError for sets that are too small
    or not finite.
    """
    rows = list(rows)
    found: dict[str, Interval] = {}
    for row in rows:
        if row.name in found:
            continue
        function = loaded(row)
        if row.together:
            found |= function(arm, reference, settings, clusters)
        elif row.interval == "subsets":
            found[row.name] = subsets_interval(function(reference), arm, settings, clusters)
        else:
            belongs = torch.arange(len(arm)) if clusters is None else clusters
            groups = deletion_groups(belongs, settings.seed, row.groups or GROUPS)
            found[row.name] = function(arm, reference, groups, settings.seed).interval(settings.level)
    return {row.name: bounded(found[row.name], *row.bounds(len(arm))) for row in rows}


def subsets_interval(
    statistic: Callable[[Tensor], float], values: Tensor, settings: Metrics, clusters: Tensor | None
) -> Interval:
    """A statistic of images' values or vectors [N, ...] with its interval from random subsets."""
    ask = (settings.resamples, settings.level, settings.seed, clusters)
    if isinstance(statistic, FrechetTo):  # which knows what its subsets have in common
        return statistic_interval(statistic.of_subsets(values), len(values), *ask)
    return statistic_interval(lambda index: statistic(values[index]), len(values), *ask)


def neighbour_intervals(
    arm: Tensor, reference: Tensor, settings: Metrics, clusters: Tensor | None = None
) -> dict[str, Interval]:
    """Precision, recall, density and coverage with their intervals over the arm's images or clusters.

    Precision and density are means over these: bootstrap, and Wilson's interval where all or none lie inside. Recall
    and coverage are means over reference images, which stay as they are: jackknife over the arm's.
    """
    k, coverage_k = settings.precision_recall_k, settings.density_coverage_k
    found = neighbour_metrics(arm, reference, k, coverage_k)
    ask = (settings.resamples, settings.level, settings.seed, clusters)
    precision = mean_interval(found.inside.double(), *ask)
    if found.precision in (0, 1):
        independent = len(arm) if clusters is None else len(torch.unique(clusters))
        precision = wilson_interval(round(found.precision) * independent, independent, settings.level)
    groups = deletion_groups(torch.arange(len(arm)) if clusters is None else clusters, settings.seed)
    recall, coverage = (
        one.interval(settings.level) for one in deleted_recall_and_coverage(arm, reference, k, coverage_k, groups)
    )
    return {
        "precision": replace(precision, n=len(arm)),
        "recall": recall,
        "density": mean_interval(found.hits.double() / coverage_k, *ask),
        "coverage": coverage,
    }
