"""Along which directions a distribution became narrower or wider."""

from dataclasses import dataclass

import torch
from torch import Tensor

from eval.distances.frechet import comparable


@dataclass(frozen=True)
class Direction:
    """A direction of feature space, unit vector `axis` [D], and the variance of both sets along it."""

    axis: Tensor
    variance: float
    baseline_variance: float

    @property
    def ratio(self) -> float:
        """Below 1: narrower than the baseline along this direction."""
        return self.variance / self.baseline_variance if self.baseline_variance else float("inf")


def leading_directions(x: Tensor, y: Tensor, count: int) -> list[Direction]:
    """The `count` directions along which the variance of x [N, D] changed most against that of y [N, D].

    They are the eigenvectors of S_x - S_y with the largest absolute eigenvalues, in that order. Eigenvectors fit the
    noise they were found in, so each is found on the even rows and its variances are measured on the odd rows.
    Raises ValueError below 4 images a set, for differing D, for count above D and for features that are not finite.
    """
    x, y = comparable(x, y, 4, "directions of spread change")
    if not 1 <= count <= x.shape[1]:
        raise ValueError(f"there are {x.shape[1]} directions, {count} were asked for")
    values, vectors = torch.linalg.eigh(_covariance(x[::2]) - _covariance(y[::2]))
    axes = vectors[:, values.abs().argsort(descending=True)[:count]].T
    return [Direction(axis, float((x[1::2] @ axis).var()), float((y[1::2] @ axis).var())) for axis in axes]


def _covariance(x: Tensor) -> Tensor:
    centred = x - x.mean(0)
    return centred.T @ centred / (len(x) - 1)
