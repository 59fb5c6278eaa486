"""Do two references point the same way? Cosines and norms of guidance directions over noise levels, from the traces.

A direction is main - reference in x0: where guidance by that reference pushes. Unrelated directions in a space of
thousands of dimensions have a cosine near 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from eval.bootstrap import Interval, mean_interval


@dataclass(frozen=True)
class Alignment:
    """Two references along one arm's trajectories.

    `steps` are (sigma, cosine) from high noise to low; `cosine` is the mean over steps, of each picture and then over
    pictures.
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
    """An arm's trace as arrays: `sigma` [S], `norms` [N, S, R], `cosines` [N, S, R (R - 1) / 2]."""

    references: tuple[str, ...]
    sigma: NDArray[np.float64]
    norms: NDArray[np.float64]
    cosines: NDArray[np.float64]

    def cosine(self, a: str, b: str) -> NDArray[np.float64]:
        """The cosines [N, S] between two references."""
        pairs = [set(pair) for pair in combinations(self.references, 2)]
        result: NDArray[np.float64] = self.cosines[:, :, pairs.index({a, b})]
        return result


def trajectories(trace: pa.Table) -> Trajectories | None:
    """The trace of an arm by picture and step; None where fewer than two references were evaluated at some step.

    `trace` has the columns image_id, step, sigma, references, relative_norms and cosines. A reference that a schedule
    leaves out at some steps is left out altogether.
    Raises ValueError where a picture lacks a step.
    """
    rows = trace.sort_by([("image_id", "ascending"), ("step", "ascending")])
    pictures, steps = len(rows["image_id"].unique()), len(rows["step"].unique())
    if len(rows) != pictures * steps:
        raise ValueError(
            f"a trace of {pictures} pictures and {steps} steps needs {pictures * steps} rows, not {len(rows)}"
        )
    names: list[list[str]] = rows["references"].to_pylist()
    common = tuple(name for name in names[0] if all(name in row for row in names)) if names else ()
    if len(common) < 2:
        return None
    norms, cosines = np.empty((len(rows), len(common))), []
    for k, (own, norm, cosine) in enumerate(
        zip(names, rows["relative_norms"].to_pylist(), rows["cosines"].to_pylist(), strict=True)
    ):
        norms[k] = [norm[own.index(name)] for name in common]
        by_pair = dict(zip(combinations(own, 2), cosine, strict=True))
        cosines.append([by_pair[pair] for pair in combinations(common, 2)])
    return Trajectories(
        common,
        rows["sigma"].to_numpy().reshape(pictures, steps).mean(0),
        norms.reshape(pictures, steps, len(common)),
        np.array(cosines).reshape(pictures, steps, -1),
    )


def alignments(found: Trajectories, resamples: int, level: float, seed: int) -> list[Alignment]:
    """Every two references, with intervals over pictures."""
    return [
        Alignment(
            (a, b),
            _over_steps(found.sigma, found.cosine(a, b), resamples, level, seed),
            _mean(found.cosine(a, b).mean(1), resamples, level, seed),
        )
        for a, b in combinations(found.references, 2)
    ]


def actions(found: Trajectories, resamples: int, level: float, seed: int) -> list[Action]:
    """Every reference: how strongly it pushes and where in the schedule, with intervals over pictures."""
    result = []
    for k, name in enumerate(found.references):
        norms = found.norms[:, :, k]
        total = np.maximum(norms.sum(1, keepdims=True), np.finfo(float).tiny)
        # The first step whose cumulated norm reaches half, as a share of the steps.
        half = (np.cumsum(norms, 1) / total >= 0.5).argmax(1) + 1
        result.append(
            Action(
                name,
                _over_steps(found.sigma, norms, resamples, level, seed),
                _mean(norms.mean(1), resamples, level, seed),
                _mean(half / norms.shape[1], resamples, level, seed),
            )
        )
    return result


def closer_to(found: Trajectories, of: str, a: str, b: str, resamples: int, level: float, seed: int) -> Interval:
    """cos(of, a) - cos(of, b), averaged over steps: above 0 where `of` points rather the way of `a`. Paired."""
    return _mean((found.cosine(of, a) - found.cosine(of, b)).mean(1), resamples, level, seed)


def _over_steps(
    sigma: NDArray[np.float64], values: NDArray[np.float64], resamples: int, level: float, seed: int
) -> list[tuple[float, Interval]]:
    means: Sequence[Interval] = [_mean(column, resamples, level, seed) for column in values.T]
    return list(zip(sigma.tolist(), means, strict=True))


def _mean(values: NDArray[np.float64], resamples: int, level: float, seed: int) -> Interval:
    return mean_interval(torch.from_numpy(np.ascontiguousarray(values)), resamples, level, seed)
