"""Does a negative prompt remove what it names, what does the prompt keep, and what else changes?

How often images show a named concept is read by a linear classifier, fitted on real images that are known to show it
and on the same subjects without it. Three numbers belong together (the question of NegGenBench): the positive prompt
is kept, the negative one obeyed, the quality stays. A fourth is the collateral: the part of an arm's shift that stays
when the directions of all that it names are taken out of the space.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from eval.comparison.named_concepts import ShiftsWithout, TaggedImages, collateral
from eval.statistics.bootstrap import bounded, mean_interval, paired_difference_interval
from eval.statistics.jackknife import Replicates
from pipeline.results.comparison import Adherence, ShownConcept
from pipeline.results.interval import Interval
from pipeline.study.study import Metrics

FOLDS = 5
# The area under the ROC curve on subjects that a classifier has not seen, from which on its word counts.
READABLE = 0.9


@dataclass(frozen=True)
class ConceptReader:
    """Whether images show a concept, by a linear classifier of `auc` on subjects that it had not seen."""

    concept: str
    auc: float
    _classifier: Any

    def __call__(self, vectors: Tensor) -> Tensor:
        """True [N] where an image with one of the vectors [N, D] rather shows the concept."""
        return torch.from_numpy(self._classifier.predict(vectors.double().numpy()).astype(bool))


def concept_readers(concepts: Sequence[str], tagged: TaggedImages, seed: int) -> list[ConceptReader]:
    """A reader for each concept that can be read, from real images with and without it.

    Every subject is held out as a whole. The two sides weigh the same: how rare a concept is among the real images
    says nothing about an arm's.
    """
    x, groups = tagged.vectors.double().numpy(), tagged.subjects.numpy()
    readers = []
    for concept in concepts:
        shows = np.array([concept in own for own in tagged.concepts])
        model = make_pipeline(
            StandardScaler(), LogisticRegression(C=1.0, solver="newton-cholesky", class_weight="balanced")
        )
        folds = GroupKFold(FOLDS, shuffle=True, random_state=seed)
        unseen = cross_val_predict(model, x, shows, groups=groups, cv=folds, method="decision_function")
        auc = float(roc_auc_score(shows, unseen))
        if auc >= READABLE:
            readers.append(ConceptReader(concept, auc, model.fit(x, shows)))
    return readers


def shown_concepts_by_arm(
    readers: Sequence[ConceptReader],
    arms: Mapping[str, Tensor],
    baseline: str,
    clusters: Tensor | None,
    settings: Metrics,
) -> tuple[list[ShownConcept], dict[str, dict[str, Tensor]]]:
    """How often the images of each arm, vectors [N, D], show each concept; and which of them do, by arm and concept."""
    shows = {arm: {reader.concept: reader(own).double() for reader in readers} for arm, own in arms.items()}
    rows = [
        ShownConcept(
            concept=reader.concept,
            auc=reader.auc,
            shares={name: _share(own[reader.concept], clusters, settings) for name, own in shows.items()},
            differences={
                name: _difference(own[reader.concept], shows[baseline][reader.concept], clusters, settings)
                for name, own in shows.items()
                if name != baseline
            },
        )
        for reader in readers
    ]
    return rows, shows


def adherence(
    names: Mapping[str, Collection[str]],
    shows: Mapping[str, Mapping[str, Tensor]],
    found: Mapping[str, Mapping[str, Replicates]],
    without: ShiftsWithout,
    clusters: Tensor | None,
    settings: Metrics,
) -> list[Adherence]:
    """The records of the arms whose negative prompts name something that can be read.

    `names` is what each arm's negative prompt names, `found` the arms' scores without each group of pairs, `without`
    their shifts with concepts taken out.
    """
    baseline = without.baseline
    readable = list(shows[baseline])
    named = {
        arm: own
        for arm in without.arms
        if arm != baseline and (own := tuple(concept for concept in readable if concept in names.get(arm, ())))
    }
    # Arms that name the same share what is taken out.
    stays = {
        arm: share
        for own in dict.fromkeys(named.values())
        for arm, share in collateral(own, [arm for arm in named if named[arm] == own], without, settings.level).items()
    }
    rows = []
    for arm, own in named.items():
        ours, theirs = (torch.stack([shows[name][concept] for concept in own]).mean(0) for name in (arm, baseline))
        rows.append(
            Adherence(
                arm=arm,
                names=list(own),
                obeyed=_difference(theirs, ours, clusters, settings),
                kept=(found[arm]["clip_score"] - found[baseline]["clip_score"]).interval(settings.level),
                quality=(found[arm]["aesthetic"] - found[baseline]["aesthetic"]).interval(settings.level),
                collateral=stays[arm],
            )
        )
    return rows


def _share(shows: Tensor, clusters: Tensor | None, settings: Metrics) -> Interval:
    found = mean_interval(shows, settings.resamples, settings.level, settings.seed, clusters)
    return bounded(found, 0, 1)


def _difference(ours: Tensor, theirs: Tensor, clusters: Tensor | None, settings: Metrics) -> Interval:
    if clusters is None:
        return paired_difference_interval(ours, theirs, settings.resamples, settings.level, settings.seed)
    return mean_interval(ours - theirs, settings.resamples, settings.level, settings.seed, clusters)
