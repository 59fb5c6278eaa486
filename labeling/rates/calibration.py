"""How well the automatic score P(malformed) matches what people say."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import roc_auc_score

from labeling.rates.ppi import Powered, Vector, rate

BINS = 10


@dataclass(frozen=True)
class Bin:
    """Labelled images with scores in [low, high): their mean score, and the rate that people see."""

    low: float
    high: float
    score: float
    rate: Powered


@dataclass(frozen=True)
class Calibrated:
    """The reliability diagram, and Brier score and AUC as (value, low, high); AUC is None for labels of one kind."""

    bins: list[Bin]
    brier: tuple[float, float, float]
    auc: tuple[float, float, float] | None


def calibrate(
    labels: ArrayLike,
    scores: ArrayLike,
    inclusion: ArrayLike,
    clusters: Sequence[object],
    resamples: int,
    level: float,
    seed: int,
) -> Calibrated:
    """Labels [n] in [0, 1] against scores [n] in [0, 1], weighted by 1 / inclusion [n].

    `clusters` names what is independent (the pair of prompt and seed): the bootstrap of Brier score and AUC draws
    clusters.
    """
    y, f, pi = (np.asarray(values, dtype=np.float64) for values in (labels, scores, inclusion))
    members: dict[object, list[int]] = defaultdict(list)
    for k, cluster in enumerate(clusters):
        members[cluster].append(k)
    groups = [np.array(group) for group in members.values()]
    random = np.random.default_rng(seed)
    draws = [
        np.concatenate([groups[k] for k in random.integers(len(groups), size=len(groups))]) for _ in range(resamples)
    ]

    def interval(statistic: Callable[[Vector, Vector, Vector], float | None]) -> tuple[float, float, float] | None:
        value = statistic(y, f, pi)
        if value is None:
            return None
        drawn = [x for x in (statistic(y[draw], f[draw], pi[draw]) for draw in draws) if x is not None]
        tail = (1 - level) / 2
        low, high = np.quantile([*drawn, value], [tail, 1 - tail]).tolist()
        return value, min(low, value), max(high, value)

    score = interval(brier)
    assert score is not None
    return Calibrated(reliability(y, f, pi, level), score, interval(auc))


def reliability(labels: Vector, scores: Vector, inclusion: Vector, level: float) -> list[Bin]:
    """The reliability diagram: ten bins of equal width, those without a label left out.

    Each bin's rate is that of all images which could have such scores.
    """
    place = np.minimum((scores * BINS).astype(int), BINS - 1)
    bins = []
    for k in np.unique(place).tolist():
        inside = place == k
        mean = float(np.average(scores[inside], weights=1 / inclusion[inside]))
        found = rate(labels[inside], inclusion[inside], level, int(inside.sum()))
        bins.append(Bin(k / BINS, (k + 1) / BINS, mean, found))
    return bins


def brier(labels: Vector, scores: Vector, inclusion: Vector) -> float:
    """The weighted mean squared difference of score and label (Brier, Monthly Weather Review 78, 1950)."""
    return float(np.average((scores - labels) ** 2, weights=1 / inclusion))


def auc(labels: Vector, scores: Vector, inclusion: Vector) -> float | None:
    """The chance that a malformed image has the higher score than another, weighted; None where one kind is missing.

    An image that several people saw differently counts as what most of them saw, and as malformed in a tie.
    """
    malformed = labels >= 0.5
    if malformed.all() or not malformed.any():
        return None
    return float(roc_auc_score(malformed, scores, sample_weight=1 / inclusion))
