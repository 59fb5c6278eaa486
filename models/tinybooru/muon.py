"""Muon for convolutions as well as matrices.

`torch.optim.Muon` takes matrices only; here a kernel [out, in, h, w] is orthogonalised as the matrix
[out, in*h*w], and everything that is not a matrix goes to AdamW. Update rule and coefficients: Keller Jordan's
Muon; scaling to AdamW's update size, so that both share a learning rate: arXiv 2502.16982, eq. 4.
"""

from collections.abc import Iterable

import torch

_A, _B, _C = 3.4445, -4.7750, 2.0315


def orthogonalise(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """The orthogonal factor of `matrix` [m, n], approximately (singular values within 0.7 to 1.2)."""
    transpose = matrix.shape[0] > matrix.shape[1]
    x: torch.Tensor = matrix.T if transpose else matrix
    x = x / (torch.linalg.vector_norm(x) + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    orthogonal: torch.Tensor = x.T if transpose else x
    return orthogonal


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised. Parameters have two dimensions or more."""

    def __init__(self, params: Iterable[torch.Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(p)
                buffer = state["momentum_buffer"]
                buffer.lerp_(p.grad, 1 - group["momentum"])
                update = p.grad.lerp(buffer, group["momentum"]).reshape(len(p), -1)
                rms = 0.2 * max(update.shape) ** 0.5
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(orthogonalise(update).reshape(p.shape), alpha=-group["lr"] * rms)
