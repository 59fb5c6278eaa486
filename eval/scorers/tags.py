"""Which tags an image shows, as far as features tell: linear classifiers fitted on the captions of the reference set.

A caption is a list of tags, separated by commas, as booru-style captions are. Images drawn by an arm are read by
the same classifiers, so a shift of the shares is one that the features see. Chances lean towards the shares of the
reference set, so shifts come out slightly too small; what no reference image shows (flaws, low quality) has no
classifier.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from eval.distances.frechet import check_features

# A tag needs this many reference images with it and without.
FEWEST = 20
# The area under the ROC curve, cross-validated, from which on a tag counts as readable.
READABLE = 0.8
MOST_TAGS, MOST_IMAGES = 64, 2000
FOLDS = 5


@dataclass(frozen=True)
class TagReader:
    """Classifiers of the `tags`, most frequent first, and the `auc` that each had on images it had not seen."""

    tags: list[str]
    auc: list[float]
    _classifiers: list[Any]

    def __call__(self, features: Tensor) -> Tensor:
        """The chances [N, T] float64 that images with `features` [N, D] show each tag."""
        x = features.double().cpu().numpy()
        columns = [torch.from_numpy(one.predict_proba(x)[:, 1]) for one in self._classifiers]
        return torch.stack(columns, 1)


def tags_of(text: str) -> list[str]:
    """The tags that a caption or a prompt lists, in order."""
    return [tag for part in text.split(",") if (tag := part.strip())]


def fit_tag_reader(features: Tensor, captions: Sequence[str], seed: int) -> TagReader | None:
    """Classifiers of the tags in the captions of reference images with `features` [M, D].

    None where fewer than two tags can be read, as with captions in prose.
    Raises ValueError for unequally many captions and for features that are not finite.
    """
    check_features(features, features, 2, "tag classifiers")
    if len(captions) != len(features):
        raise ValueError(f"tag classifiers need a caption an image, found {len(captions)} and {len(features)}")
    shown = [set(tags_of(caption)) for caption in captions[:MOST_IMAGES]]
    x = features[:MOST_IMAGES].double().cpu().numpy()
    counts = Counter(tag for tags in shown for tag in tags)
    frequent = [tag for tag, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    common = [tag for tag in frequent if FEWEST <= counts[tag] <= len(shown) - FEWEST][:MOST_TAGS]
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    tags, aucs, classifiers = [], [], []
    for tag in common:
        has = torch.tensor([tag in own for own in shown]).numpy()
        model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, solver="newton-cholesky"))
        unseen = cross_val_predict(model, x, has, cv=folds, method="predict_proba")[:, 1]
        auc = float(roc_auc_score(has, unseen))
        if auc >= READABLE:
            tags.append(tag)
            aucs.append(auc)
            classifiers.append(model.fit(x, has))
    return TagReader(tags, aucs, classifiers) if len(tags) > 1 else None


def tag_shares(chances: Tensor) -> Tensor:
    """The composition [N, T] of each image, rows sum to 1: the chance of each tag if one of its tags is drawn."""
    return chances / chances.sum(1, keepdim=True).clamp(min=torch.finfo(chances.dtype).tiny)
