"""Strengths of arms from choices between their images (Bradley and Terry, Biometrika 39, 1952).

P(a beats b) = 1 / (1 + exp(strength_b - strength_a)). A tie counts as half a win of each side: one number an arm
with one meaning; Davidson's model (JASA 65, 1970) adds a parameter for how often people tie, which no one asks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

# Half a tie between every two arms: without it an arm that never lost would be infinitely strong.
_PRIOR_TIES = 0.5
_STEPS = 100


@dataclass(frozen=True)
class Strength:
    """The log odds of an arm against the average arm, with its interval, from `n` choices it took part in."""

    value: float
    low: float
    high: float
    n: int


def strengths(
    choices: Sequence[tuple[str, str, float]],
    clusters: Sequence[object],
    arms: Sequence[str],
    resamples: int,
    level: float,
    seed: int,
) -> dict[str, Strength]:
    """Strengths, of mean 0, of the arms that choices name, with percentile intervals.

    A choice is (arm, other arm, share of the win that the first one gets: 1, 0 or 0.5 for a tie). `clusters` names
    the prompt and seed behind each: choices of one cluster share images, so the bootstrap draws clusters.
    Raises ValueError where the choices do not connect the arms with each other.
    """
    named = [arm for arm in arms if any(arm in choice[:2] for choice in choices)]
    number = {arm: k for k, arm in enumerate(named)}
    groups = {cluster: k for k, cluster in enumerate(dict.fromkeys(clusters))}
    wins: Matrix = np.zeros((len(groups), len(named), len(named)))
    for (one, other, share), cluster in zip(choices, clusters, strict=True):
        wins[groups[cluster], number[one], number[other]] += share
        wins[groups[cluster], number[other], number[one]] += 1 - share
    total: Matrix = wins.sum(axis=0)
    if not connected(choices, named):
        raise ValueError(f"the choices do not connect the arms {', '.join(named)}")
    value = fit(total)
    random = np.random.default_rng(seed)
    draws = random.integers(len(wins), size=(resamples, len(wins)))
    drawn = [fit(np.sum(wins[draw], axis=0)) for draw in draws]
    tail = (1 - level) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=0)
    taken = (total + total.T).sum(axis=1)
    return {
        arm: Strength(float(value[k]), float(min(low[k], value[k])), float(max(high[k], value[k])), round(taken[k]))
        for arm, k in number.items()
    }


def fit(wins: Matrix, prior_ties: float = _PRIOR_TIES) -> Matrix:
    """Strengths [K] of mean 0 of greatest likelihood; wins [K, K] holds how often the row's arm beat the column's.

    `prior_ties` ties between every two arms are added.
    """
    k = len(wins)
    won = wins + prior_ties / 2 * (1 - np.eye(k))
    met = won + won.T
    strength = np.zeros(k)
    for _ in range(_STEPS):
        # Newton's step; the likelihood is concave, and the prior bounds it.
        chance = 1 / (1 + np.exp(strength[None, :] - strength[:, None]))
        slope = (won - met * chance).sum(axis=1)
        curvature = met * chance * (1 - chance)
        hessian = np.diag(curvature.sum(axis=1)) - curvature
        # The mean is free; 1 / k fixes it without touching the differences.
        step = np.linalg.solve(hessian + 1 / k, slope)
        strength = strength + np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-10:
            break
    centred: Matrix = strength - strength.mean()
    return centred


def connected(choices: Sequence[tuple[str, str, float]], arms: Sequence[str]) -> bool:
    """Whether chains of choices lead from each of the arms to every other; without that no scale is common to them."""
    if not arms:
        return False
    reached = {arms[0]}
    for _ in arms:
        reached |= {arm for one, other, _ in choices if {one, other} & reached for arm in (one, other)}
    return reached >= set(arms)
