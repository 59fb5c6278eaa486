"""FD-infinity: the Fréchet distance extrapolated to infinitely many images (Chong and Forsyth, 1911.07023)."""

import torch
from torch import Tensor

from eval.distances.frechet import FrechetTo, check_features
from eval.statistics.jackknife import Replicates

POINTS = 15


def frechet_infinity(x: Tensor, reference: Tensor, seed: int, points: int = POINTS) -> float:
    """The Fréchet distance of x [N, D] from a reference [M, D], extrapolated to infinitely many images of x.

    The distance's bias goes as 1/N, so it is taken of random subsets of `points` sizes from N / 2 to N, and a straight
    line through them over 1/N is read off at 0. The reference stays as it is, and so does its share of the bias. May
    come out below 0, within its error.
    Raises ValueError below 4 images, and as `frechet_distance` does.
    """
    check_features(x, reference, 4, "extrapolated Fréchet distances")
    return _extrapolated(_distances(FrechetTo(reference), x, _subsets(len(x), seed, points), None))


def frechet_infinity_replicates(
    x: Tensor, reference: Tensor, groups: Tensor, seed: int, points: int = POINTS
) -> Replicates:
    """FD-infinity with its jackknife over the groups of x that `groups` [N] numbers (eval/statistics/jackknife.py).

    A group is left out of the *same* subsets: new subsets would add their own chance to each replicate, and the
    jackknife would take it for the images' and multiply it by the number of groups.
    Raises ValueError as `frechet_infinity` does, and where fewer than 2 images of a subset are left.
    """
    check_features(x, reference, 4, "extrapolated Fréchet distances")
    distance, subsets = FrechetTo(reference), _subsets(len(x), seed, points)
    without = [
        _extrapolated(_distances(distance, x, subsets, groups != group)) for group in range(int(groups.max()) + 1)
    ]
    value = _extrapolated(_distances(distance, x, subsets, None))
    return Replicates(value, torch.tensor(without, dtype=torch.float64), len(x))


def _subsets(n: int, seed: int, points: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.linspace(n / 2, n, points).round().long().tolist()
    return [torch.randperm(n, generator=generator)[:size] for size in sizes]


def _distances(distance: FrechetTo, x: Tensor, subsets: list[Tensor], kept: Tensor | None) -> tuple[Tensor, Tensor]:
    """One over the number of images, and the distance, of each subset: [points] each."""
    chosen = subsets if kept is None else [subset[kept[subset]] for subset in subsets]
    inverse = torch.tensor([1 / max(1, len(subset)) for subset in chosen], dtype=torch.float64)
    return inverse, torch.tensor([distance(x[subset.to(x.device)]) for subset in chosen], dtype=torch.float64)


def _extrapolated(line: tuple[Tensor, Tensor]) -> float:
    inverse, found = line
    slope = ((inverse - inverse.mean()) * (found - found.mean())).sum() / (inverse - inverse.mean()).square().sum()
    return float(found.mean() - slope * inverse.mean())
