"""The Fréchet distance between two sets of features, and what it is made of (Heusel et al., 1706.08500)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

_ROWS = 2048
_COLUMNS = 192


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


def check_features(x: Tensor, y: Tensor, smallest: int, what: str) -> None:
    """Check that two sets of features [N, D] and [M, D] are fit to be compared.

    `smallest` is the number of images that `what` (the subject of the error, in the plural) needs in each set.
    Raises ValueError with the counts for sets that are no [N, D], differ in D, are too small or are not finite.
    """
    if x.ndim != 2 or y.ndim != 2:
        raise ValueError(f"{what} need features of shape [N, D], found {list(x.shape)} and {list(y.shape)}")
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"{what} need features of one dimension, found {x.shape[1]} and {y.shape[1]}")
    if min(len(x), len(y)) < smallest:
        raise ValueError(
            f"{what} need at least {smallest} images per set, found {min(len(x), len(y))} "
            f"(the sets hold {len(x)} and {len(y)})"
        )
    # NaN and infinity come through to the sum, which takes a tenth of the time of asking every number. The sum of
    # finite numbers may overflow; then each is asked.
    if all(bool(torch.isfinite(f.sum())) for f in (x, y)):
        return
    broken = [sum(int((~torch.isfinite(rows)).any(1).sum()) for rows in torch.split(f, _ROWS)) for f in (x, y)]
    if any(broken):
        raise ValueError(
            f"{what} need finite features, found NaN or infinity in {broken[0]} of {len(x)} "
            f"and {broken[1]} of {len(y)} images"
        )


def comparable(x: Tensor, y: Tensor, smallest: int, what: str) -> tuple[Tensor, Tensor]:
    """Two sets of features in float64, after `check_features`."""
    check_features(x, y, smallest, what)
    return x.double(), y.double()


def moments(x: Tensor) -> Moments:
    """Mean and unbiased covariance of features [N, D]. Raises ValueError below 2 images or where not finite."""
    check_features(x, x, 2, "moments")
    return _moments(x)


def frechet_from_moments(a: Moments, b: Moments) -> float:
    """The Fréchet distance between two Gaussians, >= 0."""
    return _drift(a.mean, b.mean) + _covariance_part(
        a.covariance.trace(), b.covariance.trace(), _root_trace_of_moments(a.covariance, b.covariance)
    )


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """The Fréchet distance between features [N, D] and [M, D], >= 0, symmetric.

    It is biased upward by about c/N, so compare only distances at equal N and against one reference set.
    Raises ValueError below 2 images per set, for differing D, and for features that are not finite.
    """
    return decompose(x, y).fd


def decompose(x: Tensor, y: Tensor) -> Shift:
    """The Fréchet distance of x [N, D] from y [M, D], split into drift and contraction.

    `spread_ratio` is infinite where all images of y have the same features, and NaN where x's have, too.
    Raises ValueError below 2 images per set, for differing D, and for features that are not finite.
    """
    check_features(x, y, 2, "Fréchet distances")
    # With no more images than dimensions a covariance is singular: its zero eigenvalues come out near 1e-16 and
    # their roots near 1e-8, D of them. The nuclear norm takes no root of a rounding error, and is faster there.
    if min(len(x), len(y)) <= x.shape[1]:
        return _decompose_samples(x.double(), y.double())
    return _decompose_moments(_moments(x), _moments(y))


class FrechetTo:
    """The Fréchet distance of many sets from one reference [M, D], of which everything is computed once.

    A call takes the moments of a set block by block: of a large set no copy is made. `shift` centres the whole set in
    double precision, which is faster for the small sets of resampling. The two differ by rounding alone.
    Raises ValueError below 2 images and for features that are not finite.
    """

    def __init__(self, reference: Tensor):
        check_features(reference, reference, 2, "Fréchet distances")
        self._reference = reference

    def __call__(self, x: Tensor) -> float:
        """The distance of x [N, D], the same as `frechet_distance` but for rounding. Raises ValueError as that does."""
        check_features(x, self._reference, 2, "Fréchet distances")
        if min(len(x), len(self._reference)) <= x.shape[1]:
            return _decompose_samples(x.double(), self._reference.double()).fd
        found, (own, root) = _moments(x), self._moments_and_root
        spreads = found.covariance.trace(), own.covariance.trace()
        return _drift(found.mean, own.mean) + _covariance_part(*spreads, _root_trace(root, found.covariance))

    def of_subsets(self, x: Tensor) -> Callable[[Tensor], float]:
        """The distance of the rows `index` [K] of x [N, D], as a function of them, for resampling.

        Of no more images than dimensions, all that is of size D is computed once: the means of a subset are
        subtracted from its [K, K] products. Such a distance is that of a call but for 1e-6 of the spreads, since an
        eigenvalue's root is taken; that of all rows is the call's own. Raises ValueError as a call does.
        """
        check_features(x, self._reference, 2, "Fréchet distances")
        if len(x) > x.shape[1]:
            return lambda index: self(x[index])
        # Seen from the reference's mean, so that a subset's mean is its drift.
        y = self._reference.double()
        y_centred = y - y.mean(0)
        y_spread = y_centred.square().sum() / (len(y) - 1)
        moved = x.double() - y.mean(0)
        products = moved @ moved.T  # [N, N]
        cross = (moved - moved.mean(0)) @ y_centred.T  # [N, M]
        cross = cross @ cross.T  # [N, N]

        def distance(index: Tensor) -> float:
            n = len(index)
            if n in (len(x), 0, 1):
                return self(x[index])
            own = products[index][:, index]
            drift = own.mean()
            spread = (own.trace() - n * drift) / (n - 1)
            gram = cross[index][:, index]
            gram = gram - gram.mean(0) - gram.mean(1, keepdim=True) + gram.mean()
            roots = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt().sum()
            root_trace = roots / math.sqrt((n - 1) * (len(y) - 1))
            return float(drift) + _covariance_part(spread, y_spread, root_trace)

        return distance

    def shift(self, x: Tensor) -> Shift:
        """What `decompose` says of x [N, D] and the reference, but for rounding. Raises ValueError as that does."""
        own_mean, own_spread, factor = self._mean_spread_and_factor
        if factor is None:
            return decompose(x, self._reference)
        check_features(x, self._reference, 2, "Fréchet distances")
        x = x.double()
        mean = x.mean(0)
        centred = x - mean
        # S2 = L L^T: the eigenvalues of S1 S2 are those of the symmetric L^T S1 L, squared singular values of Xc L.
        product = centred @ factor / math.sqrt(len(x) - 1)
        gram = product.T @ product if len(x) > x.shape[1] else product @ product.T
        root_trace = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt().sum()
        return _shift(_drift(mean, own_mean), centred.square().sum() / (len(x) - 1), own_spread, root_trace)

    @cached_property
    def _moments_and_root(self) -> tuple[Moments, Tensor]:
        own = _moments(self._reference)
        return own, _root(own.covariance)

    @cached_property
    def _mean_spread_and_factor(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Mean [D], spread, and the covariance's Cholesky factor [D, D], None where it is singular."""
        features = self._reference.double()
        mean = features.mean(0)
        centred = features - mean
        factor, failed = torch.linalg.cholesky_ex(centred.T @ centred / (len(features) - 1))
        regular = not bool(failed) and len(features) > features.shape[1]
        return mean, centred.square().sum() / (len(features) - 1), factor if regular else None


def _decompose_samples(x: Tensor, y: Tensor) -> Shift:
    x_mean, y_mean = x.mean(0), y.mean(0)
    x_centred, y_centred = x - x_mean, y - y_mean
    x_spread = x_centred.square().sum() / (len(x) - 1)
    y_spread = y_centred.square().sum() / (len(y) - 1)
    return _shift(_drift(x_mean, y_mean), x_spread, y_spread, _root_trace_of_samples(x_centred, y_centred))


def _decompose_moments(x: Moments, y: Moments) -> Shift:
    spreads = x.covariance.trace(), y.covariance.trace()
    return _shift(_drift(x.mean, y.mean), *spreads, _root_trace_of_moments(x.covariance, y.covariance))


def _shift(drift: float, x_spread: Tensor, y_spread: Tensor, root_trace: Tensor) -> Shift:
    contraction = _covariance_part(x_spread, y_spread, root_trace)
    return Shift(drift + contraction, drift, contraction, float(x_spread / y_spread))


def _moments(x: Tensor) -> Moments:
    # One pass over blocks of rows, less a point near the mean so that nothing cancels (Chan, Golub and LeVeque 1983),
    # and only the blocks of columns on and below the diagonal: double precision for features in single precision
    # costs neither their copy nor twice the products.
    n, d = x.shape
    origin = x[:_ROWS].double().mean(0)
    block = torch.empty(min(n, _ROWS), d, dtype=torch.float64, device=x.device)
    sums = torch.zeros(d, dtype=torch.float64, device=x.device)
    products = torch.zeros(d, d, dtype=torch.float64, device=x.device)
    for rows in torch.split(x, _ROWS):
        moved = block[: len(rows)].copy_(rows).sub_(origin)
        sums += moved.sum(0)
        for at in range(0, d, _COLUMNS):
            products[at:, at : at + _COLUMNS].addmm_(moved[:, at:].T, moved[:, at : at + _COLUMNS])
    offset = sums / n
    covariance = (products - n * torch.outer(offset, offset)).tril() / (n - 1)
    return Moments(n, origin + offset, covariance + covariance.tril(-1).T)


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
    return _root_trace(_root(b), a)


def _root(covariance: Tensor) -> Tensor:
    """R [D, D] with R R^T = covariance: Cholesky's, or one of the eigenvectors where the covariance is singular."""
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if not int(failed):
        return factor  # type: ignore[no-any-return]
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp(min=0).sqrt()  # type: ignore[no-any-return]


def _root_trace(root: Tensor, covariance: Tensor) -> Tensor:
    # S1 S2 is not symmetric; R^T S1 R with R R^T = S2 is, and has its eigenvalues.
    # (eigvalsh reads the lower triangle alone.)
    eigenvalues: Tensor = torch.linalg.eigvalsh(root.T @ covariance @ root)
    return eigenvalues.clamp(min=0).sqrt().sum()
