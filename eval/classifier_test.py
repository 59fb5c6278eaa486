"""Can a classifier tell two sets apart? The classifier two-sample test (Lopez-Paz and Oquab, 1610.06545)."""

import math
import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from eval.bootstrap import Interval
from eval.frechet import comparable

FOLDS = 5


def classifier_auc(x: Tensor, y: Tensor, clusters_x: Tensor, clusters_y: Tensor, level: float) -> Interval:
    """The area under the ROC curve of a logistic regression that tells x [N, D] from y [M, D], with its interval.

    0.5: it cannot; 1: it always can. Scores come from five-fold cross-validation. Pictures with the same number in
    `clusters_x` [N] and `clusters_y` [M], such as the pictures of a pair or of a prompt, are held out together:
    otherwise a classifier that knows one picture of a pair would misjudge the other. The interval is DeLong's (1988)
    over clusters (Obuchowski, 1997), for the classifiers as they were trained.
    Raises ValueError below 2 x 5 pictures a set, below 5 clusters, for differing D and for features not finite.
    """
    x, y = comparable(x, y, 2 * FOLDS, "classifier tests")
    features = torch.cat([x, y]).numpy()
    labels = np.repeat([1, 0], [len(x), len(y)])
    groups = torch.cat([clusters_x, clusters_y]).numpy()
    if len(np.unique(groups)) < FOLDS:
        raise ValueError(f"classifier tests need at least {FOLDS} prompts or pairs, found {len(np.unique(groups))}")
    scores = np.empty(len(labels))
    for train, test in GroupKFold(FOLDS).split(features, labels, groups):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
        with warnings.catch_warnings():
            # A separable set has no finite optimum; its AUC is decided long before.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(features[train], labels[train])
        decision = model.decision_function(features[test])
        # Folds have different intercepts and scales, so scores are ranks within their fold: only order counts.
        scores[test] = stats.rankdata(np.round(decision, 9)) / (len(test) + 1)
    return _delong(scores[: len(x)], scores[len(x) :], groups, level)


def _delong(x: NDArray[np.float64], y: NDArray[np.float64], groups: NDArray[np.int64], level: float) -> Interval:
    # Placements: the share of the other set that each picture is ranked above, ties as half.
    n, m = len(x), len(y)
    ranks = stats.rankdata(np.concatenate([x, y]))
    above = (ranks[:n] - stats.rankdata(x)) / m
    below = 1 - (ranks[n:] - stats.rankdata(y)) / n
    auc = float(above.mean())
    _, cluster = np.unique(groups, return_inverse=True)
    deviations = np.concatenate([(above - auc) / n, (below - auc) / m])
    sums = np.bincount(cluster, deviations)
    count = len(sums)
    error = math.sqrt(count / (count - 1) * float((sums**2).sum()))
    half = float(stats.t.ppf((1 + level) / 2, count - 1)) * error
    return Interval(auc, max(0.0, auc - half), min(1.0, auc + half), n)
