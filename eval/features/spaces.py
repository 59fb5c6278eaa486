"""Feature spaces: the vectors of an extractor become those that two sets are compared by."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from eval.features.extraction import REFERENCE, SetFeatures, load_features
from pipeline.errors import InputError
from pipeline.layout import FEATURES
from pipeline.study.extractors import FeatureSpace
from pipeline.study.study import Study

# A covariance of as many images as dimensions is singular, and one of few more is mostly noise; of four times as many
# it is neither.
_IMAGES_PER_COMPONENT = 4
# What two feature files share if they come from one extractor.
_INSTRUMENT = ("extractor", "extractor_digest", "resize", "precision")


@dataclass(frozen=True)
class Space:
    """A feature space of a study: its `settings`, and the reference set's `vectors` [M, D] of its extractor.

    Of an arm of no more `images` than dimensions the space is that of the leading principal components of the
    reference set, a quarter as many as images, and its name says so: `efficientnet_lite0_pc48`.
    """

    settings: FeatureSpace
    vectors: Tensor
    images: int

    @property
    def name(self) -> str:
        """Its name, which begins the names of its metrics."""
        return self.settings.name + (f"_pc{self.components}" if self.components else "")

    @property
    def components(self) -> int | None:
        """How many principal components there are; None where the space has all dimensions."""
        fewer = self.images <= self.vectors.shape[1]
        return max(2, self.images // _IMAGES_PER_COMPONENT) if fewer else None

    @cached_property
    def reference(self) -> Tensor:
        """The reference set in this space, [M, K] float32."""
        return self(self.vectors)

    @property
    def explained(self) -> float:
        """The share of the reference set's variance that this space has."""
        return self._basis[2]

    def __call__(self, vectors: Tensor) -> Tensor:
        """Vectors [N, D] of the extractor in this space, [N, K] float32. Raises ValueError for another D."""
        if vectors.shape[1] != self.vectors.shape[1]:
            raise ValueError(
                f"space {self.name} takes vectors of {self.vectors.shape[1]} dimensions, not {vectors.shape[1]}"
            )
        scaled = self._scaled(vectors)
        if self.components is None:
            return scaled.float()
        mean, axes, _ = self._basis
        return ((scaled - mean) @ axes).float()

    def _scaled(self, vectors: Tensor) -> Tensor:
        return torch.nn.functional.normalize(vectors.double(), dim=1) if self.settings.unit else vectors.double()

    @cached_property
    def _basis(self) -> tuple[Tensor, Tensor, float]:
        """Mean [D] and leading axes [D, K] of the reference set, and the share of its variance along them."""
        scaled = self._scaled(self.vectors)
        mean = scaled.mean(0)
        if self.components is None:
            return mean, torch.eye(len(mean), dtype=torch.float64), 1.0
        centred = scaled - mean
        variances, axes = torch.linalg.eigh(centred.T @ centred)
        leading = variances[-self.components :].sum() / variances.clamp(min=0).sum()
        return mean, axes[:, -self.components :].flip(1), float(leading)


def study_spaces(study: Study) -> list[Space]:
    """The feature spaces of a study, the primary one first, fitted to its reference set. Raises InputError."""
    vectors = {
        name: load_features(FEATURES / REFERENCE / f"{name}.safetensors").images for name in study.features.extractors
    }
    return [Space(one, vectors[one.extractor], study.generate.images) for one in study.features.spaces]


def check_comparable(what: str, features: SetFeatures, reference: SetFeatures) -> None:
    """Raise InputError where the features of `what` and of the reference set were not made by the same extractor."""
    for key in _INSTRUMENT:
        if features.provenance[key] != reference.provenance[key]:
            raise InputError(
                f"features of '{what}' and of the reference differ in {key}: {features.provenance[key]} and "
                f"{reference.provenance[key]}; run `dvc repro`"
            )
    dimensions = [features.images.shape[1], reference.images.shape[1]]
    if dimensions[0] != dimensions[1]:
        raise InputError(
            f"features of '{what}' have {dimensions[0]} dimensions, of the reference {dimensions[1]}; run `dvc repro`"
        )
