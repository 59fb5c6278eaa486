"""Which pictures are near: Euclidean distances between features, as fast as a matrix product and as exact as a loop.

|x|^2 + |y|^2 - 2 x.y is a matrix product, but it cancels between near pictures: duplicates get a distance other than
0, and whether a picture lies in a ball depends on rounding. So the product, in single precision, only screens: where
its error bound leaves a comparison open, the distance is computed again from the differences in double precision.
Every comparison comes out as the plain double-precision distances would have it. They are few, since a picture has
a handful of neighbours near any radius.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

# Rows of a block of screened distances; blocks are ROWS x M numbers.
ROWS = 512
_EXACT_PAIRS = 16384
# |fl(a.b) - a.b| <= D u |a||b| (Higham 2002, section 3.1), and |a||b| <= (|a|^2 + |b|^2) / 2; the rest is for the
# roundings of the features, the squares and the sum.
_SLACK = 16


@dataclass(frozen=True)
class Screen:
    """Squared distances of some rows of x to all of y: surely within [`squared` - `error`, `squared` + `error`].

    `rows` slice of x, `squared` [R, M] float32, `error` [R, 1] float32.
    """

    rows: slice
    squared: Tensor
    error: Tensor


def screens(x: Tensor, y: Tensor) -> Iterator[Screen]:
    """Blocks of screened squared distances between x [N, D] and y [M, D]."""
    # Distances do not change with the origin; near the middle the norms, and with them the error, are small.
    origin = y.double().mean(0)
    y_single = (y.double() - origin).float()
    y_squares = y_single.double().square().sum(1)
    unit = torch.finfo(torch.float32).eps / 2
    for start in range(0, len(x), ROWS):
        rows = slice(start, min(start + ROWS, len(x)))
        x_single = (x[rows].double() - origin).float()
        x_squares = x_single.double().square().sum(1)
        squared = torch.addmm(y_squares.float(), x_single, y_single.T, alpha=-2)  # [R, M]
        squared += x_squares.float()[:, None]
        bound = (x.shape[1] + _SLACK) * unit * (x_squares + y_squares.max()) * 2
        yield Screen(rows, squared, bound.float()[:, None])


def exact_squared(x: Tensor, y: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """Squared distances [P] float64 of the pairs (x[i], y[j]), 0 for duplicates."""
    parts = [
        (x[i[at : at + _EXACT_PAIRS]].double() - y[j[at : at + _EXACT_PAIRS]].double()).square().sum(1)
        for at in range(0, len(i), _EXACT_PAIRS)
    ]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64, device=x.device)


def neighbour_radii(x: Tensor, k: int) -> Tensor:
    """Squared distances [N, k] float64, ascending, from each picture of x [N, D] to its nearest others.

    A picture is left out of its own neighbours by its place, not by its distance: a duplicate is a neighbour.
    """
    parts = []
    for screen in screens(x, x):
        squared = screen.squared
        squared.diagonal(screen.rows.start).fill_(torch.inf)
        # k pictures are surely no farther than the k-th screened distance and its error: nearer ones must be tried.
        limit = squared.topk(k, largest=False).values[:, -1:] + 2 * screen.error
        i, j = (squared <= limit).nonzero(as_tuple=True)
        exact = exact_squared(x, x, i + screen.rows.start, j)
        parts.append(_smallest_of_each(exact, i, len(squared), k))
    return torch.cat(parts)


def within(screen: Screen, x: Tensor, y: Tensor, radii: Tensor, closed: bool) -> Tensor:
    """Which pictures are in which balls, bool [R, M]: distance <= radius where `closed`, < radius otherwise.

    `radii` are squared, float64, [M] (of balls around y) or [R, 1] (around the rows of x).
    """
    # Signs of squared - radius, where the screen's error and the rounding of the radius leave them sure.
    single = radii.float()
    beyond = screen.squared - single
    slack = screen.error + 2 * torch.finfo(torch.float32).eps * (single if radii.ndim == 2 else single.max())
    inside = beyond < 0
    i, j = (beyond.abs_() <= slack).nonzero(as_tuple=True)
    exact = exact_squared(x, y, i + screen.rows.start, j)
    limit = radii[i, 0] if radii.ndim == 2 else radii[j]
    inside[i, j] = exact <= limit if closed else exact < limit
    return inside


def _smallest_of_each(values: Tensor, group: Tensor, groups: int, k: int) -> Tensor:
    """The k smallest values of each group, ascending, [groups, k]; each has at least k, `group` is sorted."""
    order = values.argsort(stable=True)
    order = order[group[order].argsort(stable=True)]
    starts = torch.searchsorted(group, torch.arange(groups, device=group.device))
    return values[order][starts[:, None] + torch.arange(k, device=group.device)]
