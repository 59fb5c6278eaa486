"""Maximum mean discrepancies (Gretton et al. 2012): KID, with a cubic kernel, and CMMD, with a Gaussian one.

Neither takes the features for Gaussian, and neither has the Fréchet distance's bias of c/N.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from eval.frechet import check_features

_ROWS = 512
CMMD_SIGMA = 10.0
CMMD_SCALE = 1000.0


def kid(x: Tensor, y: Tensor) -> float:
    """KID between features [N, D] and [M, D]: the unbiased squared MMD with kernel (x.y / D + 1)^3 (1801.01401).

    Over all pairs rather than over random blocks of 1,000 pictures as in the usual tools: the same expectation, no
    seed, and less variance. Unbiased, hence below 0 for about half of all pairs of equal distributions. Not multiplied.
    Raises ValueError below 2 pictures a set, for differing D, and for features that are not finite.
    """
    check_features(x, y, 2, "kernel distances")

    def cubic(products: Tensor) -> Tensor:
        return (products / x.shape[1] + 1) ** 3

    n, m = len(x), len(y)
    within_x = (_kernel_sum(x, x, cubic) - _diagonal_sum(x, cubic)) / (n * (n - 1))
    within_y = (_kernel_sum(y, y, cubic) - _diagonal_sum(y, cubic)) / (m * (m - 1))
    return within_x + within_y - 2 * _kernel_sum(x, y, cubic) / (n * m)


def cmmd(x: Tensor, y: Tensor) -> float:
    """CMMD between CLIP image embeddings [N, D] and [M, D], >= 0 (Jayasumana et al., 2401.09603).

    1,000 times the squared MMD with kernel exp(-|x - y|^2 / (2 * 10^2)) between embeddings of length 1; as in the
    authors' code the means include each picture with itself, so equal sets have exactly 0. Comparable with published
    numbers only for their CLIP, ViT-L/14 at 336 pixels.
    Raises ValueError below 2 pictures a set, for differing D, for features that are not finite or that are 0.
    """
    check_features(x, y, 2, "kernel distances")
    x, y = _unit(x), _unit(y)

    def gaussian(products: Tensor) -> Tensor:
        # |x - y|^2 = 2 - 2 x.y for vectors of length 1.
        return torch.exp((products - 1) / CMMD_SIGMA**2)

    n, m = len(x), len(y)
    squared = _kernel_sum(x, x, gaussian) / n**2 + _kernel_sum(y, y, gaussian) / m**2
    return max(0.0, CMMD_SCALE * (squared - 2 * _kernel_sum(x, y, gaussian) / (n * m)))


def _unit(x: Tensor) -> Tensor:
    norms = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    empty = int((norms == 0).sum())
    if empty:
        raise ValueError(f"CMMD needs embeddings with a direction, found {empty} of {len(x)} that are 0")
    unit: Tensor = x / norms
    return unit


def _kernel_sum(x: Tensor, y: Tensor, kernel: Callable[[Tensor], Tensor]) -> float:
    """Sum of kernel(x_i . y_j) over all pairs, in double precision, a block of rows at a time."""
    total = 0.0
    for a in torch.split(x, _ROWS):
        rows = a.double()
        total += sum(float(kernel(rows @ b.double().T).sum()) for b in torch.split(y, 8 * _ROWS))
    return total


def _diagonal_sum(x: Tensor, kernel: Callable[[Tensor], Tensor]) -> float:
    return sum(float(kernel(rows.double().square().sum(1)).sum()) for rows in torch.split(x, 8 * _ROWS))
