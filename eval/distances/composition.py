"""Of what kinds are the images? Shift of shares: total variation and Jensen-Shannon divergence (Lin, 1991)."""

import torch
from torch import Tensor


def total_variation(p: Tensor, q: Tensor) -> float:
    """Half the absolute differences of two compositions [K]: the share of images that would have to change kind."""
    return float((p - q).abs().sum() / 2)


def jensen_shannon(p: Tensor, q: Tensor) -> float:
    """The Jensen-Shannon divergence of two compositions [K], in bits, in [0, 1]."""
    middle = (p + q) / 2

    def to_middle(a: Tensor) -> Tensor:
        present = a > 0
        return (a[present] * torch.log2(a[present] / middle[present])).sum()

    return max(0.0, float((to_middle(p) + to_middle(q)) / 2))


def paired_composition_p_value(
    x: Tensor, y: Tensor, permutations: int, seed: int, clusters: Tensor | None = None
) -> float:
    """The p-value of x and y [N, K], the shares of each kind in the two images of a pair, having one composition.

    The statistic is the total variation of the means; a permutation swaps the images of a random half of the pairs,
    or of the `clusters` [N] int64 of them: pairs of one prompt change alike.
    Raises ValueError for shapes that differ and for rows that are not shares.
    """
    if x.shape != y.shape or x.ndim != 2:
        raise ValueError(
            f"compositions of pairs need shares [N, K] of one shape, found {list(x.shape)}, {list(y.shape)}"
        )
    for shares in (x, y):
        if not torch.allclose(shares.double().sum(1), torch.ones(len(shares), dtype=torch.float64), atol=1e-6):
            raise ValueError("compositions need shares that add up to 1 in every image")
    difference = (x - y).double()
    if clusters is not None:
        names, numbers = torch.unique(clusters, return_inverse=True)
        difference = torch.zeros(len(names), x.shape[1]).double().index_add_(0, numbers, difference)
    generator = torch.Generator().manual_seed(seed)
    signs = 2.0 * torch.randint(0, 2, (permutations, len(difference)), generator=generator).double() - 1
    found = float(difference.sum(0).abs().sum())
    permuted = (signs @ difference).abs().sum(1)
    return (1 + int((permuted >= found - 1e-9).sum())) / (1 + permutations)
