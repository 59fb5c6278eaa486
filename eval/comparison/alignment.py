"""Do two references point the same way? Cosines and norms of guidance directions over noise levels, from the traces.

A direction is main - reference in x0: where guidance by that reference pushes. Unrelated directions in a space of
thousands of dimensions have a cosine near 0.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from eval.statistics.bootstrap import mean_interval
from pipeline.results.interval import Interval

# A direction shorter than this share of the prediction is rounding: half precision has ten bits behind the point.
_COINCIDES = 1e-3


@dataclass(frozen=True)
class Alignment:
    """Two references along one arm's trajectories.

    `steps` are (sigma, cosine) from high noise to low; `cosine` is the mean over steps, of each image and then over
    images.
    """

    references: tuple[str, str]
    steps: list[tuple[float, Interval]]
    cosine: Interval


@dataclass(frozen=True)
class Action:
    """Where in the schedule one reference acts.

    `steps` are (sigma, |main - reference| / |main|); `norm` its mean over steps; `half` the share of the steps after
    which half of the sum of norms has been reached: 0.5 for a push that stays alike, less for one that acts early.
    """

    reference: str
    steps: list[tuple[float, Interval]]
    norm: Interval
    half: Interval


@dataclass(frozen=True)
class Trajectories:
    """An arm's trace as arrays: `sigma` [S], `norms` [N, S, R], `cosines` [N, S, R (R - 1) / 2].

    `coinciding` are the references left out because they predict what the main network does, such as the empty prompt
    of an arm that has no other: what is between them is rounding and has no direction. Where a reference does so for
    some images only, such as those whose own prompt is empty, these are left out, `without_direction` of them;
    `images` [N] are the numbers of those that are there. `incomplete` references were not evaluated at every step.
    """

    references: tuple[str, ...]
    coinciding: tuple[str, ...]
    incomplete: tuple[str, ...]
    images: NDArray[np.int64]
    without_direction: int
    sigma: NDArray[np.float64]
    norms: NDArray[np.float64]
    cosines: NDArray[np.float64]

    def cosine(self, a: str, b: str) -> NDArray[np.float64]:
        """The cosines [N, S] between two references."""
        pairs = [set(pair) for pair in combinations(self.references, 2)]
        result: NDArray[np.float64] = self.cosines[:, :, pairs.index({a, b})]
        return result


def trajectories(trace: pa.Table) -> Trajectories | None:
    """The trace of an arm by image and step; None where fewer than two references have a direction at every step, or
    fewer than two images one away from all of these.

    `trace` has the columns image_id, step, sigma, references, relative_norms and cosines. A reference that a schedule
    leaves out at some steps is left out altogether, and so is one that coincides with the main prediction. References
    may stand in another order at another step: a schedule puts those in use before those that are only probed.
    Raises ValueError where an image lacks a step.
    """
    rows = trace.sort_by([("image_id", "ascending"), ("step", "ascending")])
    images, steps = len(rows["image_id"].unique()), len(rows["step"].unique())
    if len(rows) != images * steps:
        raise ValueError(f"a trace of {images} images and {steps} steps needs {images * steps} rows, not {len(rows)}")
    names: list[list[str]] = rows["references"].to_pylist()
    common = tuple(name for name in names[0] if all(name in row for row in names)) if names else ()
    if len(common) < 2:
        return None
    norms, cosines = np.empty((len(rows), len(common))), []
    for k, (own, norm, cosine) in enumerate(
        zip(names, rows["relative_norms"].to_pylist(), rows["cosines"].to_pylist(), strict=True)
    ):
        norms[k] = [norm[own.index(name)] for name in common]
        by_pair = {frozenset(pair): value for pair, value in zip(combinations(own, 2), cosine, strict=True)}
        cosines.append([by_pair[frozenset(pair)] for pair in combinations(common, 2)])
    apart = norms.mean(0) >= _COINCIDES
    if apart.sum() < 2:
        return None
    kept = [bool(apart[a] and apart[b]) for a, b in combinations(range(len(common)), 2)]
    of_images = norms[:, apart].reshape(images, steps, -1)
    directed = (of_images.mean(1) >= _COINCIDES).all(1).nonzero()[0]
    if len(directed) < 2:
        return None
    return Trajectories(
        tuple(name for name, one in zip(common, apart, strict=True) if one),
        tuple(name for name, one in zip(common, apart, strict=True) if not one),
        tuple(name for name in dict.fromkeys(name for row in names for name in row) if name not in common),
        directed,
        images - len(directed),
        rows["sigma"].to_numpy().reshape(images, steps).mean(0),
        of_images[directed],
        np.array(cosines)[:, kept].reshape(images, steps, -1)[directed],
    )


@dataclass(frozen=True)
class Means:
    """How means over images get their intervals: by the bootstrap over images, or over `clusters` [N] of them.

    Clusters are the numbers of the prompts that images share, in the order of the trace.
    """

    resamples: int
    level: float
    seed: int
    clusters: Tensor | None = None

    def __call__(self, values: NDArray[np.float64]) -> Interval:
        """The mean of values [N]."""
        known = torch.from_numpy(np.ascontiguousarray(values))
        return mean_interval(known, self.resamples, self.level, self.seed, self.clusters)

    def over_steps(self, sigma: NDArray[np.float64], values: NDArray[np.float64]) -> list[tuple[float, Interval]]:
        """The means of values [N, S] at each step."""
        return list(zip(sigma.tolist(), [self(column) for column in values.T], strict=True))


def alignments(found: Trajectories, mean: Means) -> list[Alignment]:
    """Every two references."""
    return [
        Alignment((a, b), mean.over_steps(found.sigma, found.cosine(a, b)), mean(found.cosine(a, b).mean(1)))
        for a, b in combinations(found.references, 2)
    ]


def actions(found: Trajectories, mean: Means) -> list[Action]:
    """Every reference: how strongly it pushes and where in the schedule."""
    result = []
    for k, name in enumerate(found.references):
        norms = found.norms[:, :, k]
        total = np.maximum(norms.sum(1, keepdims=True), np.finfo(float).tiny)
        # The first step whose cumulated norm reaches half, as a share of the steps.
        half = (np.cumsum(norms, 1) / total >= 0.5).argmax(1) + 1
        result.append(
            Action(
                name,
                mean.over_steps(found.sigma, norms),
                mean(norms.mean(1)),
                mean(half / norms.shape[1]),
            )
        )
    return result


def closer_to(found: Trajectories, of: str, a: str, b: str, mean: Means) -> Interval:
    """cos(of, a) - cos(of, b), averaged over steps: above 0 where `of` is closer to `a`. Paired."""
    return mean((found.cosine(of, a) - found.cosine(of, b)).mean(1))
