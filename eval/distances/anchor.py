"""One set that many sets are compared with by the Fréchet distance: what depends on it alone is computed once."""

import math

import torch
from torch import Tensor

from eval.distances.frechet import Shift, comparable, decompose


class Anchor:
    """The fixed set y [M, D] of Fréchet distances. Raises ValueError below 2 pictures and for features not finite."""

    def __init__(self, features: Tensor):
        self._features, _ = comparable(features, features, 2, "Fréchet distances")
        self._mean = self._features.mean(0)
        centred = self._features - self._mean
        self._spread = centred.square().sum() / (len(features) - 1)
        self._root, failed = torch.linalg.cholesky_ex(centred.T @ centred / (len(features) - 1))
        self._singular = bool(failed) or len(features) <= features.shape[1]

    def shift_of(self, x: Tensor) -> Shift:
        """How far x [N, D] lies from the anchor, as `decompose(x, anchor)` says. Raises ValueError."""
        if self._singular:
            return decompose(x, self._features)
        x, _ = comparable(x, self._features, 2, "Fréchet distances")
        mean = x.mean(0)
        centred = x - mean
        # S_y = L L^T: the eigenvalues of S_x S_y are those of the symmetric L^T S_x L, squared singular values of Xc L.
        factor = centred @ self._root / math.sqrt(len(x) - 1)
        gram = factor.T @ factor if len(x) > x.shape[1] else factor @ factor.T
        root_trace = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt().sum()
        spread = centred.square().sum() / (len(x) - 1)
        drift = float((mean - self._mean).square().sum())
        contraction = max(0.0, float(spread + self._spread - 2 * root_trace))
        return Shift(drift + contraction, drift, contraction, float(spread / self._spread))
