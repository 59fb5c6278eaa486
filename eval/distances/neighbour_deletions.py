"""Recall and coverage without groups of generated pictures, for their intervals.

Both are means over reference pictures, but it is the generated ones that other seeds would change. What a group's
absence does follows from few pairs: those of generated pictures that are near one another, and those of generated and
reference pictures that are.
"""

import torch
from torch import Tensor

from eval.distances.euclidean import exact_squared, near_pairs, neighbour_radii
from eval.statistics.jackknife import Replicates

# How many neighbours beyond the k-th of each picture are known. Where more of them are left out at once, the farthest
# that is known stands for the k-th; the radius is then too small.
_SPARE = 8


def deleted_recall_and_coverage(
    generated: Tensor, reference: Tensor, recall_k: int, coverage_k: int, groups: Tensor
) -> tuple[Replicates, Replicates]:
    """Recall and coverage (neighbours.py) of generated [N, D] against reference [M, D], without each group.

    `groups` [N] int64 numbers the groups of generated pictures from 0 on. N and M are larger than both k.
    """
    spare = min(recall_k + _SPARE, len(generated) - 1)
    radius, reach = neighbour_radii(generated, [recall_k, spare]).T
    (open_radius,) = neighbour_radii(reference, [coverage_k]).T
    i, j, squared = _pairs(generated, generated, reach, torch.zeros_like(reach))
    others = (i != j) & (squared <= reach[i])
    i, j, squared = i[others], j[others], squared[others]
    # Each picture's neighbours in order of their distance, one picture after the other.
    order = torch.argsort(squared, stable=True)
    order = order[torch.argsort(i[order], stable=True)]
    i, j, squared = i[order], j[order], squared[order]
    first = torch.searchsorted(i, torch.arange(len(generated)))

    of_generated, of_reference, between = _pairs(generated, reference, reach, open_radius)
    within_reach, within_open = between <= reach[of_generated], between < open_radius[of_reference]
    found = of_generated[within_reach], of_reference[within_reach], between[within_reach]
    covering = of_generated[within_open], of_reference[within_open]

    def radii_without(kept: Tensor) -> Tensor:
        radii: Tensor = reach.clone()
        counted = (kept[i] & kept[j]).long().cumsum(0)
        rank = counted - torch.cat([torch.zeros(1, dtype=torch.int64), counted])[first][i]
        at = kept[i] & kept[j] & (rank == recall_k)
        radii[i[at]] = squared[at]
        return radii

    def recall(kept: Tensor, radii: Tensor) -> float:
        inside = kept[found[0]] & (found[2] <= radii[found[0]])
        return _share(found[1][inside], len(reference))

    def coverage(kept: Tensor) -> float:
        return _share(covering[1][kept[covering[0]]], len(reference))

    everything = torch.ones(len(generated), dtype=torch.bool)
    kept_each = [groups != group for group in range(int(groups.max()) + 1)]
    recalls = torch.tensor([recall(kept, radii_without(kept)) for kept in kept_each]).double()
    coverages = torch.tensor([coverage(kept) for kept in kept_each]).double()
    n = len(generated)
    return Replicates(recall(everything, radius), recalls, n), Replicates(coverage(everything), coverages, n)


def _pairs(x: Tensor, y: Tensor, x_reach: Tensor, y_reach: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    parts = [(one.i, one.j, exact_squared(x, y, one.i, one.j)) for one in near_pairs(x, y, x_reach, y_reach)]
    i, j, squared = (torch.cat(column) for column in zip(*parts, strict=True))
    return i, j, squared


def _share(which: Tensor, of: int) -> float:
    hit = torch.zeros(of, dtype=torch.bool)
    hit[which] = True
    return float(hit.double().mean())
