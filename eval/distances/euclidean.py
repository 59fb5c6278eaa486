"""Euclidean distances between features, to find neighbours: as fast as a matrix product and as exact as a loop.

|x|^2 + |y|^2 - 2 x.y is a matrix product, but it cancels between near images: duplicates get a distance other than
0, and whether an image lies in a ball depends on rounding. So the product, in single precision, only screens: where
its error bound leaves a comparison open, the distance is computed again from the differences in double precision.
Every comparison comes out as the plain double-precision distances would have it. They are few, since an image has
a handful of neighbours near any radius.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

# A tile of screened distances is ROWS x COLUMNS numbers: large enough for the product, small enough for the cache.
ROWS = 512
COLUMNS = 2048
# Images whose distances to all others come first and say how far a neighbour can be at most.
SAMPLE = 2048
# Candidates an image and rank that may wait for their exact distances, on the average.
_WAITING = 6
_EXACT_PAIRS = 256
_UNIT = torch.finfo(torch.float32).eps / 2
# |fl(a.b) - a.b| <= D u |a||b| (Higham 2002, section 3.1) and |a||b| <= (|a|^2 + |b|^2) / 2, likewise for the
# squares; the rest is for the roundings of the features, the sums and what is compared with them.
_SLACK = 32


@dataclass(frozen=True)
class Screen:
    """Squared distances of some rows of x to all of y: surely within [`squared` - `error`, `squared` + `error`].

    `rows` slice of x, `squared` [R, M] float32, `error` [R, 1] float32.
    """

    rows: slice
    squared: Tensor
    error: Tensor


@dataclass(frozen=True)
class Pairs:
    """Images x[i] and y[j], [P] each, whose squared distance surely lies within [`low`, `high`], [P] float32."""

    i: Tensor
    j: Tensor
    low: Tensor
    high: Tensor


@dataclass(frozen=True)
class _Points:
    """Features as the product takes them: `single` [N, D] float32 about an origin.

    Squared distances are surely within |x|^2 + |y|^2 - 2 x.y -+ (error_x + error_y), `squares` and `error` being [N].
    """

    single: Tensor
    squares: Tensor
    error: Tensor


def screens(x: Tensor, y: Tensor) -> Iterator[Screen]:
    """Blocks of screened squared distances between x [N, D] and y [M, D]."""
    origin = _middle(y)
    of_x, of_y = _points(x, origin), _points(y, origin)
    for rows in _slices(0, len(x), ROWS):
        squared = torch.addmm(of_y.squares, of_x.single[rows], of_y.single.T, alpha=-2)  # [R, M]
        squared += of_x.squares[rows, None]
        yield Screen(rows, squared, (of_x.error[rows] + of_y.error.max())[:, None])


def exact_squared(x: Tensor, y: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """Squared distances [P] float64 of the pairs (x[i], y[j]), 0 for duplicates."""
    parts = [
        (x[i[at : at + _EXACT_PAIRS]].double() - y[j[at : at + _EXACT_PAIRS]].double()).square().sum(1)
        for at in range(0, len(i), _EXACT_PAIRS)
    ]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64, device=x.device)


def near_pairs(x: Tensor, y: Tensor, x_reach: Tensor, y_reach: Tensor) -> Iterator[Pairs]:
    """Every pair of x [N, D] and y [M, D] that may be no farther than the reach of either, a tile at a time.

    `x_reach` [N] and `y_reach` [M] are squared distances. Some pairs may be a little farther.
    """
    origin = _middle(y)
    of_x, of_y = _points(x, origin), _points(y, origin)
    tiles = _Tiles(of_x, of_y)
    x_limit, y_limit = _upward(x_reach), _upward(y_reach)
    for rows in _slices(0, len(x), ROWS):
        for columns in _slices(0, len(y), COLUMNS):
            yield tiles.pairs(rows, columns, tiles.low(rows, columns), x_limit, y_limit)


def settled(pairs: Pairs, x: Tensor, y: Tensor, radii: Sequence[Tensor]) -> Tensor:
    """Squared distances [P] float64 of pairs that compare with each of the squared radii, [P], as the exact ones do."""
    squared = pairs.low.double()
    open_ = torch.zeros_like(squared, dtype=torch.bool)
    for radius in radii:
        open_ |= (pairs.low <= radius) & (pairs.high >= radius)
    squared[open_] = exact_squared(x, y, pairs.i[open_], pairs.j[open_])
    return squared


def neighbour_radii(x: Tensor, ranks: Sequence[int]) -> Tensor:
    """Squared distances [N, len(ranks)] float64 from each image of x [N, D] to its neighbours of these ranks.

    Rank 1 is the nearest other image.
    An image is excluded from its neighbours by its index, not by its distance: a duplicate is a neighbour.
    Each pair is screened once. The distances to a sample of the images say how far a k-th neighbour can be at most,
    and what is surely farther is dropped at once. Needs more images than the largest rank, k.
    """
    k = max(ranks)
    # In random order, so that the sample stands for the set even where the set is sorted.
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0)).to(x.device)
    points = _points(x, _middle(x), order)
    tiles = _Tiles(points, points)
    nearest = _Nearest(x, order, points, k)

    # The first rows hold the whole sample, so that its own limits are known before they are asked for.
    sample = slice(0, min(SAMPLE, len(x)))
    for rows in _slices(0, len(x), max(COLUMNS, SAMPLE)):
        low = tiles.low(rows, sample)
        of_sample = slice(0, sample.stop if rows.start == 0 else 0)
        low[of_sample].fill_diagonal_(torch.inf)
        if sample.stop > k:
            high = low + 2 * points.error[None, sample]
            nearest.limit[rows] = high.topk(k, largest=False).values[:, -1] + 2 * points.error[rows]
        _once(low[of_sample], of_sample, sample)
        nearest.add(tiles.pairs(rows, sample, low, nearest.limit, nearest.limit))

    for rows in _slices(sample.stop, len(x), ROWS):
        for columns in _slices(rows.start, len(x), COLUMNS):
            low = tiles.low(rows, columns)
            if columns.start < rows.stop:
                _once(low, rows, columns)
            nearest.add(tiles.pairs(rows, columns, low, nearest.limit, nearest.limit))
    radii = torch.empty(len(x), len(ranks), dtype=torch.float64, device=x.device)
    radii[order] = nearest.distances(ranks)
    return radii


class _Tiles:
    """Blocks of lower bounds of squared distances, in memory that is used again."""

    def __init__(self, x: _Points, y: _Points):
        self._x, self._y = x, y
        self._x_low, self._y_low = x.squares - x.error, y.squares - y.error
        size = max(ROWS, COLUMNS, SAMPLE) * max(COLUMNS, SAMPLE)
        self._low = x.single.new_empty(size)
        self._limit = x.single.new_empty(size)
        self._near = torch.empty(size, dtype=torch.bool, device=x.single.device)

    def low(self, rows: slice, columns: slice) -> Tensor:
        """What squared distances [R, C] surely reach; holds until the next call."""
        n, m = rows.stop - rows.start, columns.stop - columns.start
        low = self._low[: n * m].view(n, m)
        torch.addmm(self._y_low[columns], self._x.single[rows], self._y.single[columns].T, alpha=-2, out=low)
        return low.add_(self._x_low[rows, None])

    def pairs(self, rows: slice, columns: slice, low: Tensor, x_limit: Tensor, y_limit: Tensor) -> Pairs:
        """The pairs of a tile that may be no farther than the limit, [N] and [M], of either."""
        limit, near = self._limit[: low.numel()].view(low.shape), self._near[: low.numel()].view(low.shape)
        torch.maximum(x_limit[rows, None], y_limit[None, columns], out=limit)
        torch.le(low, limit, out=near)
        at = _places(near.view(-1))
        i, j = at // low.shape[1], at % low.shape[1]
        found = low.view(-1)[at].clamp(min=0)
        i, j = i + rows.start, j + columns.start
        return Pairs(i, j, found, found + 2 * (self._x.error[i] + self._y.error[j]))


class _Nearest:
    """The distances of each image's nearest others, from pairs that come in any order.

    `limit` [N] float32: what is surely farther is not a neighbour. Places are those of `points`, x[order].
    """

    def __init__(self, x: Tensor, order: Tensor, points: _Points, k: int):
        self._x, self._order, self._error, self._k = x, order, points.error, k
        # Finite, so that differences with it are never NaN.
        self.limit = torch.full_like(points.squares, torch.finfo(torch.float32).max)
        # The k nearest so far whose distances are known.
        self._known = torch.full((len(x), k), torch.inf, dtype=torch.float64, device=x.device)
        # Owner, other and lower bound, [P] each.
        nothing = order[:0], order[:0], points.error[:0]
        self._waiting: list[tuple[Tensor, Tensor, Tensor]] = [nothing]
        self._count = 0

    def add(self, pairs: Pairs) -> None:
        for owner, other in ((pairs.i, pairs.j), (pairs.j, pairs.i)):
            near = pairs.low <= self.limit[owner]
            self._waiting.append((owner[near], other[near], pairs.low[near]))
            self._count += len(self._waiting[-1][0])
        if self._count > _WAITING * self._known.numel():
            self._known = self.distances(range(1, self._k + 1))
            self._waiting, self._count = self._waiting[:1], 0
            self.limit = torch.minimum(self.limit, _upward(self._known[:, -1]))
            # Nothing is nearer than 0: in a set of copies every pair would wait.
            self.limit[self._known[:, -1] == 0] = torch.finfo(torch.float32).min

    def distances(self, ranks: Sequence[int]) -> Tensor:
        """Squared distances [N, len(ranks)] float64 to the neighbours of these ranks, 1 being the nearest."""
        images = torch.arange(len(self._x), device=self._x.device)
        known = self._known.flatten()
        owner, other, low = (torch.cat(parts) for parts in zip(*self._waiting, strict=True))
        high = torch.cat([low + 2 * (self._error[owner] + self._error[other]), _upward(known)])
        low = torch.cat([low, -_upward(-known)])
        exact = torch.cat([torch.full_like(other, torch.nan, dtype=torch.float64), known])
        other = torch.cat([other, torch.zeros_like(known, dtype=torch.int64)])
        owner = torch.cat([owner, images.repeat_interleave(self._k)])
        # k images are surely no farther than the k-th upper bound; each has as many, known ones included.
        at = _by_group(owner, high)
        limit = high[at][torch.searchsorted(owner[at], images) + self._k - 1]
        at = at[low[at] <= limit[owner[at]]]
        owner, other, low, high, exact = owner[at], other[at], low[at], high[at], exact[at]
        # The neighbour of a rank lies between the bounds of that rank; other candidates need no exact distance.
        start = torch.searchsorted(owner, images)
        ascending = low[_by_group(owner, low)]
        decisive = torch.zeros_like(owner, dtype=torch.bool)
        for rank in ranks:
            of_rank = start[owner] + rank - 1
            decisive |= (high >= ascending[of_rank]) & (low <= high[of_rank])
        decisive &= exact.isnan()
        i, j = self._order[owner[decisive]], self._order[other[decisive]]
        exact[decisive] = exact_squared(self._x, self._x, i, j)
        exact = torch.where(exact.isnan(), low.double(), exact)
        at = exact.argsort(stable=True)
        at = at[owner[at].argsort(stable=True)]
        return exact[at][start[:, None] + torch.tensor(ranks, device=start.device) - 1]


def _middle(x: Tensor) -> Tensor:
    middle: Tensor = x.mean(0, dtype=torch.promote_types(x.dtype, torch.float32))
    return middle


def _points(x: Tensor, origin: Tensor, order: Tensor | None = None) -> _Points:
    # Distances do not change with the origin; near the middle the norms, and with them the error, are small. A few
    # rows at a time: one copy of the features is enough.
    single = torch.empty(x.shape, dtype=torch.float32, device=x.device)
    squares = single.new_empty(len(x))
    for rows in _slices(0, len(x), COLUMNS):
        single[rows] = (x[rows] if order is None else x[order[rows]]) - origin
        squares[rows] = torch.linalg.vecdot(single[rows], single[rows])
    return _Points(single, squares, (2 * x.shape[1] + _SLACK) * _UNIT * squares)


def _slices(start: int, stop: int, step: int) -> Iterator[slice]:
    return (slice(at, min(at + step, stop)) for at in range(start, stop, step))


def _upward(squared: Tensor) -> Tensor:
    """Squared distances, float64 to float32, never rounded down."""
    single = squared.float()
    return torch.nextafter(single, torch.full_like(single, torch.inf))


def _once(low: Tensor, rows: slice, columns: slice) -> None:
    """Leave each pair of one set in the tile once, and no image with itself."""
    i = torch.arange(rows.start, rows.stop, device=low.device)
    j = torch.arange(columns.start, min(columns.stop, rows.stop), device=low.device)
    low[:, : len(j)].masked_fill_(j[None] <= i[:, None], torch.inf)


def _places(mask: Tensor) -> Tensor:
    """Where a mask [S] is set, [P]."""
    # A few in a million are: numpy looks at eight at a time and takes a sixth of torch's time.
    return mask.nonzero()[:, 0] if mask.is_cuda else torch.from_numpy(np.flatnonzero(mask.numpy()))


def _by_group(group: Tensor, values: Tensor) -> Tensor:
    """The order [P] of values float32 within groups; those below 0 count as 0."""
    # The bits of such numbers sort as they do, so one sort of integers does both; numpy's takes a fifth of torch's.
    keys = (group << 32) | values.clamp(min=0).abs().view(torch.int32)
    return torch.from_numpy(np.argsort(keys.cpu().numpy())).to(group.device)
