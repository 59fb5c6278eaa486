"""Maximum mean discrepancies (Gretton et al. 2012): KID, with a cubic kernel, and CMMD, with a Gaussian one.

Neither takes the features for Gaussian, and neither has the Fréchet distance's bias of c/N.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from eval.distances.frechet import check_features
from eval.statistics.jackknife import Replicates

_ROWS = 512
CMMD_SIGMA = 10.0
CMMD_SCALE = 1000.0


def kid(x: Tensor, y: Tensor) -> float:
    """KID between features [N, D] and [M, D]: the unbiased squared MMD with kernel (x.y / D + 1)^3 (1801.01401).

    Over all pairs rather than over random blocks of 1,000 images as in the usual tools: the same expectation, no
    seed, and less variance. Unbiased, hence below 0 for about half of all pairs of equal distributions. Not multiplied.
    Raises ValueError below 2 images per set, for differing D, and for features that are not finite.
    """
    return _kid_sums(x, y).unbiased()


def kid_replicates(x: Tensor, y: Tensor, groups: Tensor, _seed: int = 0) -> Replicates:
    """KID with its jackknife over the groups of x that `groups` [N] numbers (jackknife.py); y is held fixed.

    Costs the kernel values of x once again, whatever the number of groups. Nothing in it is random. Raises
    ValueError as `kid` does.
    """
    sums = _kid_sums(x, y)
    return Replicates(sums.unbiased(), torch.tensor([one.unbiased() for one in sums.without(groups)]).double(), len(x))


def cmmd(x: Tensor, y: Tensor) -> float:
    """CMMD between CLIP image embeddings [N, D] and [M, D], >= 0 (Jayasumana et al., 2401.09603).

    1,000 times the squared MMD with kernel exp(-|x - y|^2 / (2 * 10^2)) between embeddings of length 1; as in the
    authors' code the means include each image with itself, so equal sets have exactly 0. Comparable with published
    numbers only for their CLIP, ViT-L/14 at 336 pixels.
    Raises ValueError below 2 images per set, for differing D, for features that are not finite or that are 0.
    """
    return CMMD_SCALE * _cmmd_sums(x, y).biased()


def cmmd_replicates(x: Tensor, y: Tensor, groups: Tensor, _seed: int = 0) -> Replicates:
    """CMMD with its jackknife over the groups of x that `groups` [N] numbers (jackknife.py); y is held fixed.

    Nothing in it is random. Raises ValueError as `cmmd` does.
    """
    sums = _cmmd_sums(x, y)
    without = torch.tensor([one.biased() for one in sums.without(groups)]).double()
    return Replicates(CMMD_SCALE * sums.biased(), CMMD_SCALE * without, len(x))


@dataclass(frozen=True)
class _Kernel:
    """A kernel as a function of scalar products, `of_products`, of what `read` makes of rows [B, D] of features.

    Rows are read block by block: whole sets in double precision, or of length 1, would be further copies of them.
    `of_products` changes what it is given, and `read` gives a copy: memory for every step in between is not had for
    nothing, the freed blocks leave holes (600 MiB of them for 20,000 images).
    """

    of_products: Callable[[Tensor], Tensor]
    read: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class _KernelSums:
    """Sums of kernel values by image of x, float64, and what depends on y alone.

    `own` [N]: over x; `across` [N]: over y; `diagonal` [N]: k(x_i, x_i); `fixed` and `fixed_diagonal`: k(y, y).
    """

    x: Tensor
    kernel: "_Kernel"
    own: Tensor
    across: Tensor
    diagonal: Tensor
    fixed: float
    fixed_diagonal: float
    m: int

    def unbiased(self) -> float:
        """The squared MMD without the terms of an image with itself."""
        return self._squared(of_themselves=0)

    def biased(self) -> float:
        """The squared MMD with them, >= 0 but for rounding."""
        return max(0.0, self._squared(of_themselves=1))

    def _squared(self, of_themselves: int) -> float:
        n, m, left_out = len(self.own), self.m, 1 - of_themselves
        within_x = float(self.own.sum() - left_out * self.diagonal.sum()) / (n * (n - left_out))
        within_y = (self.fixed - left_out * self.fixed_diagonal) / (m * (m - left_out))
        return within_x + within_y - 2 * float(self.across.sum()) / (n * m)

    def without(self, groups: Tensor) -> Iterator["_KernelSums"]:
        """The same without each group of x."""
        for k in range(int(groups.max()) + 1):
            kept, gone = self.x[groups != k], self.x[groups == k]
            own = self.own[groups != k] - _row_sums(kept, gone, self.kernel)
            yield replace(self, x=kept, own=own, across=self.across[groups != k], diagonal=self.diagonal[groups != k])


def _kid_sums(x: Tensor, y: Tensor) -> _KernelSums:
    check_features(x, y, 2, "kernel distances")
    return _sums(x, y, _Kernel(lambda products: products.div_(x.shape[1]).add_(1).pow_(3), _double))


def _cmmd_sums(x: Tensor, y: Tensor) -> _KernelSums:
    check_features(x, y, 2, "kernel distances")
    for embeddings in (x, y):
        empty = int((torch.linalg.vector_norm(embeddings, dim=1) == 0).sum())
        if empty:
            raise ValueError(f"CMMD needs embeddings with a direction, found {empty} of {len(embeddings)} that are 0")
    # |x - y|^2 = 2 - 2 x.y for vectors of length 1.
    return _sums(x, y, _Kernel(lambda products: products.sub_(1).div_(CMMD_SIGMA**2).exp_(), _unit))


def _sums(x: Tensor, y: Tensor, kernel: _Kernel) -> _KernelSums:
    return _KernelSums(
        x,
        kernel,
        own=_row_sums(x, x, kernel),
        across=_row_sums(x, y, kernel),
        diagonal=_diagonal(x, kernel),
        fixed=float(_row_sums(y, y, kernel).sum()),
        fixed_diagonal=float(_diagonal(y, kernel).sum()),
        m=len(y),
    )


def _double(rows: Tensor) -> Tensor:
    return rows.to(torch.float64, copy=True)


def _unit(rows: Tensor) -> Tensor:
    rows = _double(rows)
    return rows.div_(torch.linalg.vector_norm(rows, dim=1, keepdim=True))


def _row_sums(x: Tensor, y: Tensor, kernel: _Kernel) -> Tensor:
    """Sums [N] over j of kernel(x_i . y_j), in double precision, a block of rows at a time."""
    sums = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for b in torch.split(y, 8 * _ROWS):
        others = kernel.read(b).T
        for rows, own in zip(torch.split(x, _ROWS), torch.split(sums, _ROWS), strict=True):
            own += kernel.of_products(kernel.read(rows) @ others).sum(1)
    return sums.cpu()


def _diagonal(x: Tensor, kernel: _Kernel) -> Tensor:
    """kernel(x_i . x_i) [N]."""
    blocks = torch.split(x, 8 * _ROWS)
    return torch.cat([kernel.of_products(kernel.read(rows).square().sum(1)) for rows in blocks]).cpu()
