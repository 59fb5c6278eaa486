"""Recall and coverage of what is left of a set when some of its images are left out, for their intervals.

Recall and coverage are means over reference images, but it is the generated ones that other seeds would change. What
the absence of some does follows from few pairs: those of generated images that are near one another, and those of
generated and reference images that are.
"""

import torch
from torch import Tensor

from eval.distances.euclidean import exact_squared, near_pairs, neighbour_radii
from eval.statistics.jackknife import Replicates

# How many neighbours beyond the k-th of each image are known, unless asked for more. Where more of them are left out
# at once, the farthest that is known stands for the k-th; the radius is then too small.
_SPARE = 8


class RemainingNeighbours:
    """Recall and coverage (neighbours.py) of any large part of generated [N, D], against reference [M, D].

    `kept` [N] bool says which images are in the part. Recall is exact where at most `spare` are left out, or are of an
    image's nearest. N and M are larger than both k.
    """

    def __init__(self, generated: Tensor, reference: Tensor, recall_k: int, coverage_k: int, spare: int = _SPARE):
        self._k, self._references = recall_k, len(reference)
        reached = min(recall_k + spare, len(generated) - 1)
        self._radius, self._reach = neighbour_radii(generated, [recall_k, reached]).T
        (open_radius,) = neighbour_radii(reference, [coverage_k]).T
        i, j, squared = _pairs(generated, generated, self._reach, torch.zeros_like(self._reach))
        others = (i != j) & (squared <= self._reach[i])
        i, j, squared = i[others], j[others], squared[others]
        # Each image's neighbours in order of their distance, one image after the other.
        order = torch.argsort(squared, stable=True)
        order = order[torch.argsort(i[order], stable=True)]
        self._i, self._j, self._squared = i[order], j[order], squared[order]
        self._first = torch.searchsorted(self._i, torch.arange(len(generated)))

        of_generated, of_reference, between = _pairs(generated, reference, self._reach, open_radius)
        within_reach, within_open = between <= self._reach[of_generated], between < open_radius[of_reference]
        self._found = of_generated[within_reach], of_reference[within_reach], between[within_reach]
        self._covering = of_generated[within_open], of_reference[within_open]

    def recall(self, kept: Tensor) -> float:
        """The share of reference images inside the manifold of the images that are kept."""
        radii = self._radius if bool(kept.all()) else self._radii(kept)
        inside = kept[self._found[0]] & (self._found[2] <= radii[self._found[0]])
        return _share(self._found[1][inside], self._references)

    def coverage(self, kept: Tensor) -> float:
        """The share of reference images in whose ball one of the images lies that are kept."""
        return _share(self._covering[1][kept[self._covering[0]]], self._references)

    def _radii(self, kept: Tensor) -> Tensor:
        """Squared distances [N] from each image to its k-th neighbour among those that are kept."""
        radii: Tensor = self._reach.clone()
        both = kept[self._i] & kept[self._j]
        counted = both.long().cumsum(0)
        rank = counted - torch.cat([torch.zeros(1, dtype=torch.int64), counted])[self._first][self._i]
        at = both & (rank == self._k)
        radii[self._i[at]] = self._squared[at]
        return radii


def deleted_recall_and_coverage(
    generated: Tensor, reference: Tensor, recall_k: int, coverage_k: int, groups: Tensor
) -> tuple[Replicates, Replicates]:
    """Recall and coverage (neighbours.py) of generated [N, D] against reference [M, D], without each group.

    `groups` [N] int64 numbers the groups of generated images from 0 on. N and M are larger than both k.
    """
    neighbours = RemainingNeighbours(generated, reference, recall_k, coverage_k)
    everything = torch.ones(len(generated), dtype=torch.bool)
    kept_each = [groups != group for group in range(int(groups.max()) + 1)]
    recall, coverage = (
        Replicates(share(everything), torch.tensor([share(kept) for kept in kept_each]).double(), len(generated))
        for share in (neighbours.recall, neighbours.coverage)
    )
    return recall, coverage


def _pairs(x: Tensor, y: Tensor, x_reach: Tensor, y_reach: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    parts = [(one.i, one.j, exact_squared(x, y, one.i, one.j)) for one in near_pairs(x, y, x_reach, y_reach)]
    i, j, squared = (torch.cat(column) for column in zip(*parts, strict=True))
    return i, j, squared


def _share(which: Tensor, of: int) -> float:
    hit = torch.zeros(of, dtype=torch.bool)
    hit[which] = True
    return float(hit.double().mean())
