"""Intervals of whole-set statistics by the delete-a-group jackknife (Shao and Wu, 1989; Kott, 2001).

Groups of images are left out of *every* arm alike. A statistic, a difference between arms that share seeds, a value
interpolated between arms: each is a function of the same replicates, so one pass over the groups gives all intervals,
paired where the images are. docs/statistics.md has the simulations.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor

from eval.bootstrap import Interval

GROUPS = 64


@dataclass(frozen=True)
class Replicates:
    """A statistic of n images: its `value`, and `without` [G]: its value without each of G groups."""

    value: float
    without: Tensor
    n: int

    def __sub__(self, other: "Replicates") -> "Replicates":
        """The paired difference: both lose the same images."""
        return combined(lambda a, b: a - b, self, other)

    @property
    def standard_error(self) -> float:
        """The jackknife's standard error, sqrt((G-1)/G sum (without_g - mean)^2)."""
        groups = len(self.without)
        return math.sqrt((groups - 1) / groups * float((self.without - self.without.mean()).square().sum()))

    def interval(self, level: float) -> Interval:
        """value -/+ Student's t with G - 1 degrees of freedom times the standard error."""
        half = float(stats.t.ppf((1 + level) / 2, len(self.without) - 1)) * self.standard_error
        return Interval(self.value, self.value - half, self.value + half, self.n)

    def p_value(self, neutral: float = 0.0) -> float:
        """Two-sided p-value of the value being `neutral`, by Student's t; 1 where nothing varies and all is neutral."""
        distance, error = abs(self.value - neutral), self.standard_error
        if error <= 1e-12 * max(1.0, abs(neutral)):
            return 1.0 if distance <= 1e-9 * max(1.0, abs(neutral)) else 0.0
        return float(2 * stats.t.sf(distance / error, len(self.without) - 1))


def deletion_groups(clusters: Tensor, seed: int, groups: int = GROUPS) -> Tensor:
    """The number [N] int64, from 0 on, of the random group that each image is left out with.

    `clusters` [N] int64 says which images belong together, such as those of one prompt; no cluster is cut. Images on
    their own are clusters of one. There are no more groups than clusters, of as equally many clusters as can be.
    Raises ValueError below 3 clusters.
    """
    names, members = torch.unique(clusters, return_inverse=True)
    if len(names) < 3:
        raise ValueError(f"intervals of set statistics need at least 3 images or prompts, found {len(names)}")
    count = min(groups, len(names))
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed))
    group_of_cluster = torch.empty_like(order)
    group_of_cluster[order] = torch.arange(len(names)) % count
    return group_of_cluster[members]


def deletions(clusters: Tensor, seed: int, groups: int = GROUPS) -> list[Tensor]:
    """The image numbers, int64 and ascending, that stay when each group of `deletion_groups` is left out."""
    group = deletion_groups(clusters, seed, groups)
    return [torch.nonzero(group != k).flatten() for k in range(int(group.max()) + 1)]


def replicates(statistic: Callable[[Tensor], dict[str, float]], n: int, kept: list[Tensor]) -> dict[str, Replicates]:
    """Every statistic that `statistic` finds on given image numbers, with its replicates.

    `statistic` takes image numbers, int64, and returns the same names each time; it is asked once for all n images,
    and once for each of `kept`.
    """
    value = statistic(torch.arange(n))
    without = [statistic(index) for index in kept]
    return {
        name: Replicates(value[name], torch.tensor([one[name] for one in without], dtype=torch.float64), n)
        for name in value
    }


def combined(function: Callable[..., float], *parts: Replicates) -> Replicates:
    """A function of statistics that lost the same groups, such as a difference, with its replicates."""
    rows = zip(*(part.without.tolist() for part in parts), strict=True)
    without = torch.tensor([function(*row) for row in rows], dtype=torch.float64)
    return Replicates(function(*(part.value for part in parts)), without, parts[0].n)
