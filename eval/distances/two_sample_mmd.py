"""The two-sample test by maximum mean discrepancy, with a permutation p-value (Gretton et al., 2012).

The kernel is exp(-|x - y|^2 / (2 m)), m the median squared distance of the pooled set.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from eval.distances.frechet import comparable

# The kernel matrix has the square of this many rows; larger sets are thinned by the seed.
MOST = 4000


@dataclass(frozen=True)
class PermutationTest:
    """The unbiased squared MMD (near 0, and as often below it, for equal distributions) and its p-value.

    `p` is (1 + permutations at least as large) / (1 + permutations), so never 0.
    """

    mmd2: float
    p: float
    n: int


def paired_mmd_test(
    x: Tensor, y: Tensor, permutations: int, seed: int, clusters: Tensor | None = None
) -> PermutationTest:
    """Whether x and y [N, D], whose rows k are a pair, come from one distribution.

    Images of a pair share prompt and seed, so only the two images *of a pair* are exchangeable under the null
    hypothesis: a permutation swaps them in a random half of the pairs, or of the `clusters` [N] int64 of pairs, such as
    those of one prompt, which change alike. With h(i, j) = k(x_i, x_j) + k(y_i, y_j)
    - k(x_i, y_j) - k(y_i, x_j), mmd2 is the mean of h over i != j (Gretton et al., equation 4), and swapping pair i
    turns the sign of row and column i of h. Within a cluster nothing turns.
    Raises ValueError below 3 pairs, for sets of unequal size, for differing D and for features that are not finite.
    """
    x, y = comparable(x, y, 3, "permutation tests")
    if len(x) != len(y):
        raise ValueError(f"paired permutation tests need equally many images in both sets, found {len(x)} and {len(y)}")
    generator = torch.Generator().manual_seed(seed)
    if len(x) > MOST // 2:
        chosen = torch.randperm(len(x), generator=generator)[: MOST // 2]
        x, y = x[chosen], y[chosen]
        clusters = None if clusters is None else clusters[chosen]
    n = len(x)
    kernel = _kernel(torch.cat([x, y]))
    h = kernel[:n, :n] + kernel[n:, n:] - kernel[:n, n:] - kernel[n:, :n]
    h.fill_diagonal_(0)
    found = float(h.sum()) / (n * (n - 1))
    if clusters is not None:
        names, numbers = torch.unique(clusters, return_inverse=True)
        belongs = torch.zeros(n, len(names)).double()
        belongs[torch.arange(n), numbers] = 1
        h = belongs.T @ h @ belongs
    signs = 2.0 * torch.randint(0, 2, (permutations, len(h)), generator=generator).double() - 1
    permuted = ((signs @ h) * signs).sum(1) / (n * (n - 1))
    return PermutationTest(found, _p(found, permuted), n)


def mmd_test(x: Tensor, y: Tensor, permutations: int, seed: int) -> PermutationTest:
    """Whether x [N, D] and y [M, D], drawn independently, come from one distribution; permutes the pooled images.

    Raises ValueError below 3 images per set, for differing D and for features that are not finite.
    """
    x, y = comparable(x, y, 3, "permutation tests")
    generator = torch.Generator().manual_seed(seed)
    x, y = (z[torch.randperm(len(z), generator=generator)[: MOST // 2]] if len(z) > MOST // 2 else z for z in (x, y))
    n, m = len(x), len(y)
    kernel = _kernel(torch.cat([x, y]))
    kernel.fill_diagonal_(0)
    first = torch.zeros(permutations + 1, n + m, dtype=torch.float64)
    first[0, :n] = 1
    for row in first[1:]:
        row[torch.randperm(n + m, generator=generator)[:n]] = 1
    towards_first = first @ kernel
    xx = (towards_first * first).sum(1)
    xy = (towards_first * (1 - first)).sum(1)
    yy = kernel.sum() - xx - 2 * xy
    values = xx / (n * (n - 1)) + yy / (m * (m - 1)) - 2 * xy / (n * m)
    return PermutationTest(float(values[0]), _p(float(values[0]), values[1:]), n)


def _kernel(pooled: Tensor) -> Tensor:
    squared = torch.cdist(pooled, pooled, compute_mode="donot_use_mm_for_euclid_dist").square()
    off_diagonal = squared[~torch.eye(len(pooled), dtype=torch.bool)]
    median = float(off_diagonal.median())
    # Sets whose images are all alike have no scale; any kernel then gives 0.
    return torch.exp(-squared / (2 * median)) if median > 0 else torch.ones_like(squared)


def _p(found: float, permuted: Tensor) -> float:
    # Rounding must not make a permutation that changes nothing look smaller than the value itself.
    at_least = int((permuted >= found - 1e-12 * (1 + abs(found))).sum())
    return (1 + at_least) / (1 + len(permuted))
