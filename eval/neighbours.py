"""Fidelity and variety from nearest neighbours: precision, recall, density and coverage.

Precision and recall follow Kynkäänniemi et al. (1904.06991): a picture is inside a set's manifold where it lies
in the closed ball (`<=`) around one of the set's pictures that reaches that picture's k-th neighbour. Density and
coverage follow Naeem et al. (2002.09797), whose balls are open (`<`). Precision, density and coverage use the
balls of the reference set, recall those of the generated set.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from eval.frechet import comparable


@dataclass(frozen=True)
class NeighbourMetrics:
    """The four metrics, and the terms of each picture that they are means of.

    `precision`, `recall` and `coverage` are in [0, 1]; `density` is >= 0, near 1 for equal distributions.
    `inside` [N] bool: the generated picture lies inside the reference manifold (precision).
    `reference_found` [M] bool: the reference picture lies inside the generated manifold (recall).
    `hits` [N] int64: the number of reference balls the generated picture lies in (density is its mean over k).
    `covered` [M] bool: a generated picture lies in the reference picture's ball (coverage).
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
    generated: Tensor,
    reference: Tensor,
    precision_recall_k: int = 3,
    density_coverage_k: int = 5,
    chunk: int = 1024,
) -> NeighbourMetrics:
    """Precision, recall, density and coverage of generated [N, D] against reference [M, D] features.

    Holds `chunk` rows of a distance matrix at a time; `chunk` changes nothing in the result.
    Raises ValueError for a k below 1, below k + 1 pictures a set, for differing D, and for features that are not
    finite.
    """
    if min(precision_recall_k, density_coverage_k) < 1:
        raise ValueError(
            f"neighbour metrics need k of at least 1, found {precision_recall_k} for precision and recall "
            f"and {density_coverage_k} for density and coverage"
        )
    comparable(generated, reference, precision_recall_k + 1, f"precision and recall with k = {precision_recall_k}")
    generated, reference = comparable(
        generated, reference, density_coverage_k + 1, f"density and coverage with k = {density_coverage_k}"
    )
    (generated_radius,) = radii(generated, [precision_recall_k], chunk)
    reference_radius, reference_open_radius = radii(reference, [precision_recall_k, density_coverage_k], chunk)

    reference_found = torch.zeros(len(reference), dtype=torch.bool, device=reference.device)
    covered = torch.zeros_like(reference_found)
    insides, hit_counts = [], []
    for rows, distance in distances(generated, reference, chunk):  # [chunk, M]
        insides.append((distance <= reference_radius).any(1))
        reference_found |= (distance <= generated_radius[rows, None]).any(0)
        in_ball = distance < reference_open_radius
        hit_counts.append(in_ball.sum(1))
        covered |= in_ball.any(0)
    inside, hits = torch.cat(insides), torch.cat(hit_counts)
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


def distances(x: Tensor, y: Tensor, chunk: int) -> Iterator[tuple[slice, Tensor]]:
    """Slices of x and their distances to y, [chunk, M]."""
    for start in range(0, len(x), chunk):
        rows = slice(start, min(start + chunk, len(x)))
        # |x|^2 + |y|^2 - 2 x.y, the fast way, cancels between near pictures and gives duplicates a distance
        # other than 0; a ball test between duplicates then depends on rounding.
        yield rows, torch.cdist(x[rows], y, compute_mode="donot_use_mm_for_euclid_dist")


def radii(x: Tensor, ks: Sequence[int], chunk: int) -> list[Tensor]:
    """For each k, the distance [N] from each picture to its k-th neighbour among the others."""
    nearest = []
    for rows, distance in distances(x, x, chunk):
        # The picture itself is left out by its place, not by its distance: a duplicate is a neighbour.
        distance.diagonal(rows.start).fill_(torch.inf)
        nearest.append(distance.topk(max(ks), largest=False).values)
    sorted_distances = torch.cat(nearest)  # [N, max(ks)], ascending
    return [sorted_distances[:, k - 1] for k in ks]


def _mean(values: Tensor) -> float:
    return float(values.double().mean())
