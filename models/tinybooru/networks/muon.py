"""Muon's update of convolutions and matrices: momentum, orthogonalised.

`torch.optim.Muon` takes matrices only; here a kernel [out, in, h, w] is orthogonalised as the matrix [out, in*h*w], and
matrices of one shape together. Update rule and coefficients: Keller Jordan's Muon; scaling to AdamW's update size, so
that both share a learning rate: arXiv 2502.16982, eq. 4.
"""

import torch

_A, _B, _C = 3.4445, -4.7750, 2.0315


def orthogonalise(matrices: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """The orthogonal factors of `matrices` [N, m, n], approximately (singular values within 0.7 to 1.2).

    In bfloat16 on a GPU.
    """
    x = matrices.bfloat16() if matrices.is_cuda else matrices
    if x.shape[1] > x.shape[2]:
        return orthogonalise(matrices.mT, steps).mT
    x = x / (torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    orthogonal: torch.Tensor = x.to(matrices.dtype)
    return orthogonal


def update_scale(shape: tuple[int, ...]) -> float:
    """What an orthogonal update of matrices of `shape` is multiplied by to be as large as AdamW's."""
    return float(0.2 * max(shape) ** 0.5)
