"""Fidelity and variety from nearest neighbours: precision, recall, density and coverage.

Precision and recall follow Kynkäänniemi et al. (1904.06991): an image is inside a set's manifold where it lies
in the closed ball (`<=`) around one of the set's images that reaches that image's k-th neighbour. Density and
coverage follow Naeem et al. (2002.09797), whose balls are open (`<`). Precision, density and coverage use the
balls of the reference set, recall those of the generated set.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from eval.distances.euclidean import near_pairs, neighbour_radii, settled
from eval.distances.frechet import check_features


@dataclass(frozen=True)
class NeighbourMetrics:
    """The four metrics, and the terms of each image that they are means of.

    `precision`, `recall` and `coverage` are in [0, 1]; `density` is >= 0, near 1 for equal distributions.
    `inside` [N] bool: the generated image lies inside the reference manifold (precision).
    `reference_found` [M] bool: the reference image lies inside the generated manifold (recall).
    `hits` [N] int64: the number of reference balls the generated image lies in (density is its mean over k).
    `covered` [M] bool: a generated image lies in the reference image's ball (coverage).
    """

    precision: float
    recall: float
    density: float
    coverage: float
    inside: Tensor
    reference_found: Tensor
    hits: Tensor
    covered: Tensor


def neighbour_metrics(
    generated: Tensor, reference: Tensor, precision_recall_k: int = 3, density_coverage_k: int = 5
) -> NeighbourMetrics:
    """Precision, recall, density and coverage of generated [N, D] against reference [M, D] features.

    Holds a few rows of a distance matrix at a time. Comparisons are those of double-precision distances
    (eval/distances/euclidean.py): a duplicate's distance is 0, and no ball test depends on how the work is cut.
    Raises ValueError for a k below 1, below k + 1 images per set, for differing D, and for features that are not
    finite.
    """
    if min(precision_recall_k, density_coverage_k) < 1:
        raise ValueError(
            f"neighbour metrics need k of at least 1, found {precision_recall_k} for precision and recall "
            f"and {density_coverage_k} for density and coverage"
        )
    check_features(generated, reference, precision_recall_k + 1, f"precision and recall with k = {precision_recall_k}")
    check_features(generated, reference, density_coverage_k + 1, f"density and coverage with k = {density_coverage_k}")
    (generated_radius,) = neighbour_radii(generated, [precision_recall_k]).T
    reference_radius, open_radius = neighbour_radii(reference, [precision_recall_k, density_coverage_k]).T
    reach = torch.maximum(reference_radius, open_radius)

    inside = torch.zeros(len(generated), dtype=torch.bool, device=generated.device)
    hits = torch.zeros(len(generated), dtype=torch.int64, device=generated.device)
    reference_found = torch.zeros(len(reference), dtype=torch.bool, device=reference.device)
    covered = torch.zeros_like(reference_found)
    for pairs in near_pairs(generated, reference, generated_radius, reach):
        i, j = pairs.i, pairs.j
        balls = reference_radius[j], open_radius[j], generated_radius[i]
        squared = settled(pairs, generated, reference, balls)
        inside[i[squared <= balls[0]]] = True
        in_ball = squared < balls[1]
        hits += torch.bincount(i[in_ball], minlength=len(hits))
        covered[j[in_ball]] = True
        reference_found[j[squared <= balls[2]]] = True
    return NeighbourMetrics(
        precision=_mean(inside),
        recall=_mean(reference_found),
        density=_mean(hits) / density_coverage_k,
        coverage=_mean(covered),
        inside=inside,
        reference_found=reference_found,
        hits=hits,
        covered=covered,
    )


def _mean(values: Tensor) -> float:
    return float(values.double().mean())
