"""Intervals of whole-set statistics by the delete-a-group jackknife (Shao and Wu, 1989; Kott, 2001).

Groups of images are left out of *every* arm alike. A statistic, a difference between arms that share seeds, a value
interpolated between arms: each is a function of the same replicates, so one pass over the groups gives all intervals,
paired where the images are. docs/statistics.md has the simulations.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from scipy import stats
from torch import Tensor

from pipeline.results.interval import Interval

GROUPS = 64
# Groups whose numbers differ by one of these are also left out together: 2 G pairs of the G (G - 1) / 2.
_APART = (1, 2)
# Below so many groups the few pairs say nothing.
_FEWEST_GROUPS = 16
# The share of the jackknife's variance that no correction goes below.
_FLOOR = 0.25


@dataclass(frozen=True)
class Replicates:
    """A statistic of n images: its `value`, and `without` [G]: its value without each of G groups.

    `without_two` [P], where given, is its value without each of `group_pairs(G)`; see `variance`.
    """

    value: float
    without: Tensor
    n: int
    without_two: Tensor | None = None

    def __sub__(self, other: "Replicates") -> "Replicates":
        """The paired difference: both lose the same images."""
        return combined(lambda a, b: a - b, self, other)

    @property
    def variance(self) -> float:
        """The jackknife's variance, (G-1)/G sum (without_g - mean)^2, less its bias where pairs were left out, too.

        The jackknife counts the part of a statistic that is quadratic in the images twice (Efron and Stein 1981).
        What two groups do together beyond what they do alone measures that part, which is taken off once. It is an
        estimate itself, so a quarter of the variance always stays.
        """
        if self.without_two is None:
            return self._jackknife
        groups = len(self.without)
        first, second = group_pairs(groups).T
        together = groups * self.value - (groups - 1) * (self.without[first] + self.without[second])
        together = (together + (groups - 2) * self.without_two) / groups
        quadratic = groups * (groups - 1) / 2 * float((together - together.mean()).square().mean())
        return max(self._jackknife - quadratic, _FLOOR * self._jackknife)

    @property
    def standard_error(self) -> float:
        return math.sqrt(self.variance)

    @property
    def degrees(self) -> float:
        """Degrees of freedom of the variance: G - 1, or where it is corrected what is left of Satterthwaite's.

        Those follow from the fourth moment of the replicates; a variance of which a part was taken off has, in that
        proportion, less to stand on.
        """
        groups = len(self.without)
        if self.without_two is None or not self._jackknife:
            return groups - 1
        squares = (self.without - self.without.mean()).square()
        concentration = float(squares.square().sum() / squares.sum().square()) - 1 / groups
        satterthwaite = 2 / max(concentration, 2 / (groups - 1))
        return max(2.0, satterthwaite * self.variance / self._jackknife)

    def interval(self, level: float) -> Interval:
        """value -/+ Student's t with `degrees` degrees of freedom times the standard error."""
        half = float(stats.t.ppf((1 + level) / 2, self.degrees)) * self.standard_error
        return Interval(self.value, self.value - half, self.value + half, self.n)

    def p_value(self, neutral: float = 0.0) -> float:
        """Two-sided p-value of the value being `neutral`, by Student's t; 1 where nothing varies and all is neutral."""
        distance, error = abs(self.value - neutral), self.standard_error
        if error <= 1e-12 * max(1.0, abs(neutral)):
            return 1.0 if distance <= 1e-9 * max(1.0, abs(neutral)) else 0.0
        return float(2 * stats.t.sf(distance / error, self.degrees))

    @property
    def _jackknife(self) -> float:
        groups = len(self.without)
        return (groups - 1) / groups * float((self.without - self.without.mean()).square().sum())


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


def group_pairs(groups: int) -> Tensor:
    """The numbers [P, 2] of the groups that are also left out two at a time; [0, 2] where there are too few groups."""
    if groups < _FEWEST_GROUPS:
        return torch.empty(0, 2, dtype=torch.int64)
    first = torch.arange(groups)
    return torch.cat([torch.stack([first, (first + apart) % groups], 1) for apart in _APART])


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


def with_pairs(found: Replicates, statistic: Callable[[Tensor], float], kept: list[Tensor]) -> Replicates:
    """The same replicates with those of two groups left out at once; `found` is `statistic` on each of `kept`.

    For a statistic that is largely quadratic in the images, such as a difference of Fréchet distances.
    """
    pairs = group_pairs(len(kept)).tolist()
    if not pairs:
        return found
    both = [statistic(kept[a][torch.isin(kept[a], kept[b])]) for a, b in pairs]
    return replace(found, without_two=torch.tensor(both, dtype=torch.float64))


def combined(function: Callable[..., float], *parts: Replicates) -> Replicates:
    """A function of statistics that lost the same groups, such as a difference, with its replicates.

    It has those of two groups left out at once where all parts have them.
    """

    def of(rows: list[Tensor]) -> Tensor:
        return torch.tensor([function(*row) for row in zip(*(row.tolist() for row in rows), strict=True)]).double()

    without_two = [part.without_two for part in parts if part.without_two is not None]
    return Replicates(
        function(*(part.value for part in parts)),
        of([part.without for part in parts]),
        parts[0].n,
        of(without_two) if len(without_two) == len(parts) else None,
    )
