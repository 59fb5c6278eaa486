"""MIND, the Monge Inception Distance: sliced optimal transport between two sets of features (2605.06797)."""

import torch
from torch import Tensor

from eval.distances.frechet import check_features
from eval.statistics.jackknife import Replicates

PROJECTIONS = 1000
# Projected features that are held at once, in numbers of each set.
_HELD = 2**21


def mind(x: Tensor, reference: Tensor, seed: int = 0, projections: int = PROJECTIONS) -> float:
    """MIND between features [N, D] and [M, D], >= 0, in squared feature units (Berthet et al., 2605.06797).

    3 D times the mean of W2^2 between the projections of both sets on `projections` random unit vectors. Each W2^2 is
    the exact squared Wasserstein-2 distance on the line, the integral of (Qx(t) - Qy(t))^2 over t in [0, 1], Q being
    the quantile functions: steps, so sets of unequal size need no subset. Two sets that differ by a shift v have
    3 |v|^2 on average over directions. The directions follow from `seed` and D alone, so all arms meet the same.
    Unlike the Fréchet distance it sees more than means and covariances. Like it, it is biased upwards by about c/N:
    compare arms of equal N.
    Raises ValueError below 2 images per set, for differing D, and for features that are not finite.
    """
    no_groups = torch.zeros(len(x), dtype=torch.int64)
    return float(_values(x, reference, no_groups, 0, seed, projections)[0])


def mind_replicates(
    x: Tensor, reference: Tensor, groups: Tensor, seed: int, projections: int = PROJECTIONS
) -> Replicates:
    """MIND with its jackknife over the groups of x that `groups` [N] numbers (jackknife.py).

    The reference and the directions are held fixed; every set is projected and sorted once. Raises ValueError as `mind`
    does.
    """
    values = _values(x, reference, groups, int(groups.max()) + 1, seed, projections)
    return Replicates(float(values[0]), values[1:], len(x))


def _values(x: Tensor, reference: Tensor, groups: Tensor, count: int, seed: int, projections: int) -> Tensor:
    """MIND [1 + count], float64, of the whole set and without each of the groups."""
    check_features(x, reference, 2, "Monge distances")
    # About one origin: distances do not change, and the sums of squares below cancel less.
    middle = reference.double().mean(0)
    x, reference = x.double() - middle, reference.double() - middle
    dimension = x.shape[1]
    directions = torch.randn(
        projections, dimension, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    ).to(x.device)
    directions /= torch.linalg.vector_norm(directions, dim=1, keepdim=True)
    sizes = torch.bincount(groups, minlength=count)[:count]
    first = sizes.cumsum(0) - sizes
    total = torch.zeros(1 + count, dtype=torch.float64)
    for some in torch.split(directions, max(1, _HELD // max(len(x), len(reference)))):
        of_reference = (some @ reference.T).sort(1).values  # [P, M]
        projected, order = (some @ x.T).sort(1)  # [P, N]
        fixed, squares = of_reference.square().mean(1).sum(), projected.square()
        across = (projected * _quantile_sums(of_reference, len(x))).sum()
        total[0] += float(fixed + squares.sum() / len(x) - 2 * across)
        member = groups.to(x.device)[order]
        of_groups = torch.zeros(count, dtype=torch.float64, device=x.device)
        if count:
            of_groups.index_add_(0, member.flatten(), squares.flatten())
        # The places of group after group, ascending within each.
        places = member.argsort(dim=1, stable=True)
        for size in torch.unique(sizes).tolist():
            chosen = (sizes == size).nonzero().flatten()
            gone = places[:, (first[chosen, None] + torch.arange(size)).flatten()].view(len(some), len(chosen), size)
            left = len(x) - size
            without = _across_without(projected, gone, _quantile_sums(of_reference, left))
            total[1 + chosen] += (fixed + (squares.sum() - of_groups[chosen]) / left - 2 * without).cpu()
    # The integral is never negative, its three sums are rounded.
    return (3 * dimension / projections * total).clamp(min=0)


def _across_without(ascending: Tensor, gone: Tensor, weights: Tensor) -> Tensor:
    """Sums [G] of what is left of `ascending` [P, N], times `weights` [P, N - S], without the places `gone` [P, G, S].

    What stands behind s places that are gone moves s down: with the running sums for each s, a group costs no more than
    its own places. Few large groups are cheaper one by one.
    """
    rows, groups, size = gone.shape
    n = ascending.shape[1]
    sums = torch.zeros(groups, dtype=torch.float64, device=ascending.device)
    if size >= 4 * groups:
        for k in range(groups):
            kept = torch.ones_like(ascending, dtype=torch.bool).scatter_(1, gone[:, k], False)
            sums[k] = (ascending[kept].view(rows, -1) * weights).sum()
        return sums
    edge = gone.new_zeros(rows, groups, 1)
    starts, stops = torch.cat([edge, gone + 1], 2), torch.cat([gone, edge + n], 2)
    for moved in range(size + 1):
        running = torch.nn.functional.pad((ascending[:, moved : moved + n - size] * weights).cumsum(1), (1, 0))
        until, before = (running.gather(1, ends[:, :, moved] - moved) for ends in (stops, starts))
        sums += (until - before).sum(0)
    return sums


def _quantile_sums(ascending: Tensor, n: int) -> Tensor:
    """Integrals [P, n] of the quantile functions of `ascending` [P, M] over each of n equal parts of [0, 1]."""
    m = ascending.shape[1]
    # The integral from 0 to t is piecewise linear between multiples of 1 / m.
    until = torch.nn.functional.pad(ascending.cumsum(1) / m, (1, 0))  # [P, M + 1]
    parts = torch.arange(n + 1, device=ascending.device) * m
    whole, rest = parts // n, (parts % n).double() / n
    at = until[:, whole] + rest * ascending[:, whole.clamp(max=m - 1)] / m
    return at.diff(dim=1)
