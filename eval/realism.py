"""How deep a single picture lies inside the reference manifold: the realism score (1904.06991, equation 3)."""

import torch
from torch import Tensor

from eval.frechet import comparable
from eval.neighbours import distances, radii


def realism(generated: Tensor, reference: Tensor, k: int = 3, chunk: int = 1024) -> Tensor:
    """Realism [N] float64 of generated [N, D] against reference [M, D] features, >= 0, infinite for an exact copy.

    The largest ratio, over reference pictures, of the distance to their k-th neighbour and the distance to the
    generated picture; 1 is the rim of the manifold, more is inside. As in the paper, the half of the reference
    pictures with the larger radii is left out: in sparse regions a ball is large and everything would seem real.
    Raises ValueError below k + 1 reference pictures, for differing D, and for features that are not finite.
    """
    generated, reference = comparable(generated, reference, 1, "realism scores")
    if len(reference) < k + 1:
        raise ValueError(f"realism with k = {k} needs at least {k + 1} reference pictures, found {len(reference)}")
    (radius,) = radii(reference, [k], chunk)
    dense = radius <= radius.median()
    kept, kept_radius = reference[dense], radius[dense]
    parts = []
    for _, distance in distances(generated, kept, chunk):
        # A copy of a picture that has k more copies: 0 / 0, and on the rim by the closed ball of 1904.06991.
        ratio = torch.where((distance == 0) & (kept_radius == 0), 1.0, kept_radius / distance)
        parts.append(ratio.amax(1))
    return torch.cat(parts)
