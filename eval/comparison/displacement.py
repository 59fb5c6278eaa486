"""How far images moved between two arms that share prompts and seeds, so that image k pairs with image k."""

from dataclasses import dataclass

import torch
from torch import Tensor

from eval.distances.frechet import comparable


@dataclass(frozen=True)
class PairedDisplacement:
    """The displacement d = x - y of pairs, split into a common part and the rest.

    `mean_norm` is |mean d|, in feature units. `mean_share` is |mean d|^2 / mean |d|^2, in [0, 1]: 1 where every
    image moved alike, about 1/N where the images moved in unrelated directions, 0 where none moved.
    `dispersion` is mean |d - mean d|^2, in squared feature units; mean_norm^2 + dispersion = mean |d|^2.
    """

    mean_norm: float
    mean_share: float
    dispersion: float


def paired_displacement(x: Tensor, y: Tensor) -> PairedDisplacement:
    """The displacement from y [N, D] to x [N, D], whose rows k are a pair.

    Raises ValueError below 2 pairs, for sets of unequal size, for differing D, and for features that are not finite.
    """
    x, y = comparable(x, y, 2, "paired displacements")
    if len(x) != len(y):
        raise ValueError(f"paired displacements need equally many images in both sets, found {len(x)} and {len(y)}")
    displacement = x - y
    mean = displacement.mean(0)
    common = float(mean.square().sum())
    dispersion = float((displacement - mean).square().sum(1).mean())
    total = common + dispersion
    return PairedDisplacement(float(torch.linalg.vector_norm(mean)), common / total if total else 0.0, dispersion)
