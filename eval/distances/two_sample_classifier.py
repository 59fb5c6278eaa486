"""The classifier two-sample test: can a classifier tell two sets apart? (Lopez-Paz and Oquab, 1610.06545)"""

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

from eval.distances.frechet import comparable
from pipeline.results.interval import Interval

FOLDS = 5


def classifier_auc(x: Tensor, y: Tensor, clusters_x: Tensor, clusters_y: Tensor, level: float) -> Interval:
    """The area under the ROC curve of a logistic regression that tells x [N, D] from y [M, D], with its interval.

    0.5: it cannot; 1: it always can. Scores come from five-fold cross-validation. Images with the same number in
    `clusters_x` [N] and `clusters_y` [M], such as the images of a pair or of a prompt, are held out together:
    otherwise a classifier that knows one image of a pair would misjudge the other. The area is the share of pairs of
    one fold that are in order, since each fold has its own classifier; a fold without images of one set has no
    pairs. The interval is DeLong's (1988) over clusters (Obuchowski, 1997), for the classifiers as they were trained.
    Raises ValueError below 2 x 5 images per set, below 5 clusters, for differing D and for features not finite.
    """
    x, y = comparable(x, y, 2 * FOLDS, "classifier tests")
    features = torch.cat([x, y]).numpy()
    labels = np.repeat([1, 0], [len(x), len(y)])
    groups = torch.cat([clusters_x, clusters_y]).numpy()
    if len(np.unique(groups)) < FOLDS:
        raise ValueError(f"classifier tests need at least {FOLDS} prompts or pairs, found {len(np.unique(groups))}")
    # Of the pairs (x, y) of one fold: how many an image is in, and how many of them are in order.
    pairs, right = np.zeros(len(labels)), np.zeros(len(labels))
    for train, test in GroupKFold(FOLDS).split(features, labels, groups):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
        with warnings.catch_warnings():
            # A separable set has no finite optimum; its AUC is decided long before.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(features[train], labels[train])
        decision = np.round(model.decision_function(features[test]), 9)
        ours = labels[test] == 1
        pairs[test] = np.where(ours, (~ours).sum(), ours.sum())
        right[test] = _pairs_in_order(decision, ours)
    return _delong(pairs, right, groups, len(x), level)


def _pairs_in_order(decision: NDArray[np.float64], ours: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Of each image [T]: how many of the other set it is on the right side of, ties as half."""
    ranks = stats.rankdata(decision)
    right = np.empty(len(decision))
    right[ours] = ranks[ours] - stats.rankdata(decision[ours])
    right[~ours] = ours.sum() - (ranks[~ours] - stats.rankdata(decision[~ours]))
    return right


def _delong(
    pairs: NDArray[np.float64], right: NDArray[np.float64], groups: NDArray[np.int64], n: int, level: float
) -> Interval:
    # Every pair is counted once for its image of x and once for its image of y.
    total = float(pairs.sum()) / 2
    if total == 0:
        raise ValueError("classifier tests need folds with images of both sets; take more prompts")
    auc = float(right.sum()) / (2 * total)
    _, cluster = np.unique(groups, return_inverse=True)
    sums = np.bincount(cluster, (right - auc * pairs) / total)
    # Clusters with images of x, such as pairs, and those with images of y alone, such as real images beside an
    # arm's prompts: a few of the one kind do not become many by many of the other.
    with_x = np.bincount(cluster, np.arange(len(groups)) < n) > 0
    variances, degrees = [], []
    for own in (sums[with_x], sums[~with_x]):
        if len(own) > 1:
            variances.append(len(own) / (len(own) - 1) * float((own**2).sum()))
            degrees.append(len(own) - 1)
    variance = sum(variances)
    shares = sum(v**2 / d for v, d in zip(variances, degrees, strict=True))
    # Satterthwaite's (1946).
    half = float(stats.t.ppf((1 + level) / 2, variance**2 / shares)) * math.sqrt(variance) if variance else 0.0
    return Interval(auc, max(0.0, auc - half), min(1.0, auc + half), n)
