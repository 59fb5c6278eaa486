"""The numbers of claims that need more of a finished study than its comparison: images, their scores and their trace.

Rows are pairs: image k of two arms shares prompt and seed. Where prompts repeat, intervals are over prompts.
"""

from abc import abstractmethod
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from docs.answers.numbers import Number
from eval.distances.vendi import vendi_score
from eval.features.extraction import load_extractor, load_features
from eval.features.extractor import embed_images
from eval.statistics.bootstrap import mean_interval, statistic_interval
from pipeline.errors import InputError
from pipeline.finished_study import FinishedStudy
from pipeline.generation.reference_images import read_reference_images
from pipeline.layout import FEATURES, SETS, TRACES
from pipeline.results.interval import Interval
from pipeline.settings import ArmName
from pipeline.storage.shards import decode_images, read_set, read_table, shard_paths

# The extractor whose vectors say what an image shows.
_EXTRACTOR = "clip"


class FinishedImages:
    """A finished study's images, features, scores and traces by arm, read when asked for."""

    def __init__(self, study: FinishedStudy) -> None:
        self.study = study

    def _measured(self) -> tuple[int, float, int]:
        metrics = self.study.settings.metrics
        return metrics.resamples, metrics.level, metrics.seed

    def images(self, arm: str) -> Tensor:
        """Images [N, H, W, 3] in 0 to 255."""
        table = read_set(self._folder(arm), ["image"])
        return torch.from_numpy(np.stack([np.asarray(image, np.float32) for image in decode_images(table)]))

    def features(self, arm: str) -> Tensor:
        """Unit vectors [N, D] of what images show."""
        vectors = load_features(self.study.root / FEATURES / arm / f"{_EXTRACTOR}.safetensors").images
        return torch.nn.functional.normalize(vectors.double(), dim=1)

    def references(self, arm: str) -> Tensor:
        """Unit vectors [R, D] of what the reference images of an arm show. Raises InputError where it has none."""
        own = self.study.settings.arm(arm)
        if own.reference_images is None:
            raise InputError(f"arm '{arm}' of study '{self.study.settings.name}' has no reference_images")
        extractor = load_extractor(self.study.settings.features.extractors[_EXTRACTOR], torch.device("cpu"))
        vectors = embed_images(extractor, read_reference_images(arm, own))
        return torch.nn.functional.normalize(vectors.double(), dim=1)

    def scores(self, arm: str, name: str) -> Tensor:
        """A per-image score [N]. Raises InputError for an unknown one."""
        table = self.study.scores(arm).sort_values("pair_id")
        if name not in table:
            raise InputError(f"study '{self.study.settings.name}' has no score '{name}' of single images")
        return torch.tensor(table[name].to_numpy(float))

    def norms(self, arm: str, reference: str) -> Tensor:
        """|main - reference| / |main| of each image [N], mean over its steps."""
        sums: dict[str, list[float]] = {}
        for path in shard_paths(self.study.root / TRACES / arm):
            table = read_table(path, ["image_id", "references", "relative_norms"])
            rows = zip(*(table.column(name).to_pylist() for name in table.column_names), strict=True)
            for image, references, norms in rows:
                if reference in references:
                    sums.setdefault(image, []).append(norms[references.index(reference)])
        if not sums:
            raise InputError(f"the trace of arm '{arm}' has no reference '{reference}'; add it to the arm's probes")
        return torch.tensor([sum(values) / len(values) for _, values in sorted(sums.items())], dtype=torch.float64)

    @cached_property
    def prompts(self) -> Tensor:
        """The number of each image's prompt [N], by the baseline's prompts."""
        texts = read_set(self._folder(self.study.baseline), ["prompt"]).column("prompt").to_pylist()
        numbers = {text: k for k, text in enumerate(dict.fromkeys(texts))}
        return torch.tensor([numbers[text] for text in texts])

    @property
    def clusters(self) -> Tensor | None:
        """The prompts where some repeat; None where every image has another one, or all have the same."""
        many = int(self.prompts.max()) + 1
        return self.prompts if 1 < many < len(self.prompts) else None

    def mean(self, values: Tensor) -> Interval:
        """The mean of values [N] of single images or pairs, with its interval."""
        return mean_interval(values, *self._measured(), clusters=self.clusters)

    def mean_over_prompts(self, values: Tensor) -> Interval:
        """The mean of values [P] of prompts, with its interval."""
        return mean_interval(values, *self._measured(), clusters=torch.arange(len(values)))

    def statistic(self, values: Tensor, of: Callable[[Tensor], float]) -> Interval:
        """A statistic of rows [N, ...], with its interval."""
        return statistic_interval(lambda rows: of(values[rows]), len(values), *self._measured(), clusters=self.clusters)

    def _folder(self, arm: str) -> Path:
        self.study.settings.arm(arm)
        return self.study.root / SETS / arm


class ImageNumber(Number):
    """A number of a finished study's images."""

    @abstractmethod
    def measure(self, images: FinishedImages) -> Interval:
        """The number. Raises InputError where the study does not have what it takes."""


class Pixels(ImageNumber):
    """How much two arms' images of one seed differ: the mean absolute difference of their pixels, of 255."""

    of: Literal["pixels"]
    arms: tuple[ArmName, ArmName]

    def measure(self, images: FinishedImages) -> Interval:
        one, other = (images.images(arm) for arm in self.arms)
        if one.shape != other.shape:
            raise InputError(f"arms {self.arms[0]} and {self.arms[1]} have images of different sizes")
        return images.mean((one - other).abs().flatten(1).mean(1).double())


class ScoreDifference(ImageNumber):
    """The paired difference of a per-image score, the first arm minus the second."""

    signed: ClassVar[bool] = True
    of: Literal["difference"]
    score: str
    arms: tuple[ArmName, ArmName]

    def measure(self, images: FinishedImages) -> Interval:
        one, other = (images.scores(arm, self.score) for arm in self.arms)
        return images.mean(one - other)


class Farther(ImageNumber):
    """How much farther one arm's images lie from those of a third arm than another's do, by their pixels, of 255."""

    signed: ClassVar[bool] = True
    of: Literal["farther"]
    arms: tuple[ArmName, ArmName]
    than: ArmName

    def measure(self, images: FinishedImages) -> Interval:
        start = images.images(self.than)
        one, other = ((images.images(arm) - start).abs().flatten(1).mean(1).double() for arm in self.arms)
        return images.mean(one - other)


class Resemblance(ImageNumber):
    """How much more an arm's images resemble its reference images than another arm's of the same seeds do: the cosine
    of what they show, the mean over the references, the first arm minus the second."""

    signed: ClassVar[bool] = True
    of: Literal["resemblance"]
    arms: tuple[ArmName, ArmName]

    def measure(self, images: FinishedImages) -> Interval:
        references = images.references(self.arms[0])  # [R, D]
        one, other = ((images.features(arm) @ references.T).mean(1) for arm in self.arms)
        return images.mean(one - other)


class PromptVariety(ImageNumber):
    """How many different images a prompt has: the Vendi score of its images' unit vectors, mean over prompts, the first
    arm minus the second."""

    signed: ClassVar[bool] = True
    of: Literal["prompt_variety"]
    arms: tuple[ArmName, ArmName]

    def measure(self, images: FinishedImages) -> Interval:
        one, other = (self._each(images, arm) for arm in self.arms)
        return images.mean_over_prompts(one - other)

    def _each(self, images: FinishedImages, arm: str) -> Tensor:
        vectors = images.features(arm)
        scores = [vendi_score(vectors[images.prompts == prompt]) for prompt in range(int(images.prompts.max()) + 1)]
        return torch.tensor(scores, dtype=torch.float64)


class SeedShare(ImageNumber):
    """Which share of the variance of images over seeds and arms is the seed's: the rest is the arm's and what only that
    arm makes of that seed. Of a per-image score, or of what images show where none is named."""

    of: Literal["seed_share"]
    arms: tuple[ArmName, ...]
    score: str = ""

    def measure(self, images: FinishedImages) -> Interval:
        if self.score:
            columns = [images.scores(arm, self.score)[:, None] for arm in self.arms]
        else:
            columns = [images.features(arm) for arm in self.arms]
        return images.statistic(torch.stack(columns, 1), seed_share)


class Relation(ImageNumber):
    """The correlation, over one arm's images, of how hard a reference pushes with a per-image score."""

    signed: ClassVar[bool] = True
    of: Literal["relation"]
    reference: str
    score: str
    arm: ArmName

    def measure(self, images: FinishedImages) -> Interval:
        pairs = torch.stack([images.norms(self.arm, self.reference), images.scores(self.arm, self.score)], 1)
        return images.statistic(pairs, correlation)


def seed_share(values: Tensor) -> float:
    """The share of the variance of values [N, A, D] over N seeds and A arms that lies between the seeds' means."""
    total = (values - values.mean((0, 1))).square().sum()
    between = values.shape[1] * (values.mean(1) - values.mean((0, 1))).square().sum()
    return float(between / total) if total else 1.0


def correlation(pairs: Tensor) -> float:
    """Pearson's correlation of pairs [N, 2]; 0 where one of the two is the same everywhere."""
    return float(torch.corrcoef(pairs.T)[0, 1].nan_to_num())
