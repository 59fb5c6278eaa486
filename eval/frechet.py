"""The Fréchet distance between two sets of features, and what it is made of (Heusel et al., 1706.08500)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """The Gaussian a set of features is taken for: `mean` [D] and unbiased `covariance` [D, D], float64."""

    n: int
    mean: Tensor
    covariance: Tensor


@dataclass(frozen=True)
class Shift:
    """How far set x lies from set y: `fd = drift + contraction`, all in squared feature units.

    `drift` is the distance between the means. `contraction` is the distance between the covariances; it is
    never negative and does not tell narrower from wider: `spread_ratio` does, below 1 where x is the narrower.
    """

    fd: float
    drift: float
    contraction: float
    spread_ratio: float


def comparable(x: Tensor, y: Tensor, smallest: int, what: str) -> tuple[Tensor, Tensor]:
    """Two sets of features [N, D] and [M, D] in float64, fit to be compared.

    `smallest` is the number of pictures that `what` (the subject of the error, in the plural) needs in each set.
    Raises ValueError with the counts for sets that are no [N, D], differ in D, are too small or are not finite.
    """
    if x.ndim != 2 or y.ndim != 2:
        raise ValueError(f"{what} need features of shape [N, D], found {list(x.shape)} and {list(y.shape)}")
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"{what} need features of one dimension, found {x.shape[1]} and {y.shape[1]}")
    if min(len(x), len(y)) < smallest:
        raise ValueError(
            f"{what} need at least {smallest} pictures a set, found {min(len(x), len(y))} "
            f"(the sets hold {len(x)} and {len(y)})"
        )
    broken = [int((~torch.isfinite(features)).any(1).sum()) for features in (x, y)]
    if any(broken):
        raise ValueError(
            f"{what} need finite features, found NaN or infinity in {broken[0]} of {len(x)} "
            f"and {broken[1]} of {len(y)} pictures"
        )
    return x.double(), y.double()


def moments(x: Tensor) -> Moments:
    """Mean and unbiased covariance of features [N, D]. Raises ValueError below 2 pictures or where not finite."""
    x, _ = comparable(x, x, 2, "moments")
    return _moments(x)


def frechet_from_moments(a: Moments, b: Moments) -> float:
    """The Fréchet distance between two Gaussians, >= 0."""
    return _drift(a.mean, b.mean) + _covariance_part(
        a.covariance.trace(), b.covariance.trace(), _root_trace_of_moments(a.covariance, b.covariance)
    )


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """The Fréchet distance between features [N, D] and [M, D], >= 0, symmetric.

    It is biased upward by about c/N, so compare only distances at equal N and against one reference set.
    Raises ValueError below 2 pictures a set, for differing D, and for features that are not finite.
    """
    return decompose(x, y).fd


def decompose(x: Tensor, y: Tensor) -> Shift:
    """The Fréchet distance of x [N, D] from y [M, D], split into drift and contraction.

    `spread_ratio` is infinite where all pictures of y have the same features, and NaN where x's have, too.
    Raises ValueError below 2 pictures a set, for differing D, and for features that are not finite.
    """
    x, y = comparable(x, y, 2, "Fréchet distances")
    x_mean, y_mean = x.mean(0), y.mean(0)
    x_centred, y_centred = x - x_mean, y - y_mean
    x_spread = x_centred.square().sum() / (len(x) - 1)
    y_spread = y_centred.square().sum() / (len(y) - 1)
    # With no more pictures than dimensions a covariance is singular: its zero eigenvalues come out near 1e-16 and
    # their roots near 1e-8, D of them. The nuclear norm takes no root of a rounding error, and is faster there.
    if min(len(x), len(y)) <= x.shape[1]:
        root_trace = _root_trace_of_samples(x_centred, y_centred)
    else:
        root_trace = _root_trace_of_moments(_moments(x).covariance, _moments(y).covariance)
    drift = _drift(x_mean, y_mean)
    contraction = _covariance_part(x_spread, y_spread, root_trace)
    return Shift(drift + contraction, drift, contraction, float(x_spread / y_spread))


def _moments(x: Tensor) -> Moments:
    mean = x.mean(0)
    centred = x - mean
    return Moments(len(x), mean, centred.T @ centred / (len(x) - 1))


def _drift(a: Tensor, b: Tensor) -> float:
    return float((a - b).square().sum())


def _covariance_part(a: Tensor, b: Tensor, root_trace: Tensor) -> float:
    # The squared Bures distance, never negative but for rounding.
    return max(0.0, float(a + b - 2 * root_trace))


def _root_trace_of_samples(x: Tensor, y: Tensor) -> Tensor:
    # Tr sqrt(S1 S2) = |Xc Yc^T|_* / sqrt((n-1)(m-1)): the nonzero eigenvalues of S1 S2 are the squared singular
    # values of Xc Yc^T [N, M], but for the factor.
    singular: Tensor = torch.linalg.svdvals(x @ y.T)
    return singular.sum() / math.sqrt((len(x) - 1) * (len(y) - 1))


def _root_trace_of_moments(a: Tensor, b: Tensor) -> Tensor:
    # S1 S2 is not symmetric, S1^1/2 S2 S1^1/2 is and has its eigenvalues.
    values, vectors = torch.linalg.eigh(a)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    product = root @ b @ root
    eigenvalues: Tensor = torch.linalg.eigvalsh((product + product.T) / 2)
    return eigenvalues.clamp(min=0).sqrt().sum()
