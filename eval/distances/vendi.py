"""The Vendi score: how many different images a set holds (Friedman and Dieng, 2210.02410)."""

from collections.abc import Callable

import torch
from torch import Tensor

_ROWS = 4096


def vendi_score(x: Tensor) -> float:
    """The effective number of different images among features [N, D], in [1, min(N, D)].

    exp of the entropy of the eigenvalues of K / N, K being the cosines between the images; computed from the dual
    matrix [D, D], whose nonzero eigenvalues are the same, or from K where N < D. It grows with N: compare at equal N.
    Raises ValueError for features that are no [N, D], hold no image, are not finite, or are 0.
    """
    if x.ndim != 2 or len(x) < 1:
        raise ValueError(f"the Vendi score needs features [N, D] of at least 1 image, found {list(x.shape)}")
    broken = int((~torch.isfinite(x)).any(1).sum())
    if broken:
        raise ValueError(f"the Vendi score needs finite features, found NaN or infinity in {broken} of {len(x)}")
    empty = int((x == 0).all(1).sum())
    if empty:
        raise ValueError(f"the Vendi score needs features with a direction, found {empty} of {len(x)} that are 0")
    if len(x) < x.shape[1]:
        unit = torch.nn.functional.normalize(x.double(), dim=1)
        matrix = unit @ unit.T
    else:
        matrix = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64, device=x.device)
        for rows in torch.split(x, _ROWS):
            unit = torch.nn.functional.normalize(rows.double(), dim=1)
            matrix += unit.T @ unit
    shares = torch.linalg.eigvalsh(matrix / len(x)).clamp(min=0)
    return float(torch.special.entr(shares).sum().exp())


def vendi_beside(_reference: Tensor) -> Callable[[Tensor], float]:
    """The Vendi score where set metrics are asked for: whatever the reference set, it says nothing about it."""
    return vendi_score
