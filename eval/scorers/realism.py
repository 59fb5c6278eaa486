"""How deep a single image lies inside the reference manifold: the realism score (1904.06991, equation 3)."""

import torch
from torch import Tensor

from eval.distances.euclidean import exact_squared, neighbour_radii, screens
from eval.distances.frechet import check_features


def realism(generated: Tensor, reference: Tensor, k: int = 3) -> Tensor:
    """Realism [N] float64 of generated [N, D] against reference [M, D] features, >= 0, infinite for an exact copy.

    The largest ratio, over reference images, of the distance to their k-th neighbour and the distance to the
    generated image; 1 is the rim of the manifold, more is inside. As in the paper, the half of the reference
    images with the larger radii is left out: in sparse regions a ball is large and everything would seem real.
    Raises ValueError below k + 1 reference images, for differing D, and for features that are not finite.
    """
    check_features(generated, reference, 1, "realism scores")
    if len(reference) < k + 1:
        raise ValueError(f"realism with k = {k} needs at least {k + 1} reference images, found {len(reference)}")
    radius = neighbour_radii(reference, [k])[:, 0]
    dense = radius <= radius.median()
    kept, kept_radius = reference[dense], radius[dense]
    parts = []
    for screen in screens(generated, kept):
        # The largest ratio is among those that the screen's error cannot tell from the largest.
        lowest = kept_radius / (screen.squared.double() + screen.error)
        highest = kept_radius / (screen.squared.double() - screen.error).clamp(min=0)
        # A ball of radius 0 may hold a copy: 0 / 0, and on the rim by the closed ball of 1904.06991.
        i, j = ((highest >= lowest.amax(1, keepdim=True)) | highest.isnan()).nonzero(as_tuple=True)
        squared = exact_squared(generated, kept, i + screen.rows.start, j)
        ratio = torch.where((squared == 0) & (kept_radius[j] == 0), 1.0, kept_radius[j] / squared)
        best = torch.zeros(len(lowest), dtype=torch.float64, device=ratio.device)
        parts.append(best.scatter_reduce(0, i, ratio, "amax").sqrt())
    return torch.cat(parts)
