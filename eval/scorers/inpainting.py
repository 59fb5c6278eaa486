"""What inpainting did inside its mask, outside and at the rim, beside the image that it started from.

The part outside is the start image's, so scores of whole images (CLIP score, P(malformed)) of two arms that inpaint the
same images differ by what is inside alone.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from eval.features.extraction import load_extractor
from eval.features.extractor import embed_images
from eval.features.spaces import Space
from eval.scorers.set_metrics import set_metrics
from eval.statistics.bootstrap import mean_interval
from pipeline.generation.masks import Masks
from pipeline.layout import REFERENCE_SET, SETS
from pipeline.results.interval import Interval
from pipeline.results.metrics import metric
from pipeline.storage.files import file_digest
from pipeline.storage.shards import decode_images, read_set, set_fingerprint
from pipeline.study.arm import Arm
from pipeline.study.study import Study

Pixels = npt.NDArray[np.float64]
Region = npt.NDArray[np.bool_]

# The width of the rim on either side of the mask's edge, of the canvas's shorter side: 2 pixels of 64.
_RIM = 1 / 32
_GREY = 128


@dataclass(frozen=True)
class InpaintingScores:
    """Per-image columns [N], and every number of the arm with its interval, by name."""

    images: dict[str, Tensor]
    numbers: dict[str, Interval]


def outside_change(image: Pixels, start: Pixels, mask: Pixels) -> float:
    """The mean absolute change, in levels of 255, of the pixels [H, W, 3] where the mask [H, W] is 0.

    It is not a number where there are none.
    """
    outside = mask == 0
    return float(np.abs(image - start)[outside].mean()) if outside.any() else float("nan")


def rim_step(image: Pixels, start: Pixels, mask: Pixels) -> float:
    """How much larger the step across the mask's edge is than in the start image, in levels of 255: a seam raises it.

    A step is the mean absolute difference of two pixels [H, W, 3] next to each other of which one is inside the mask
    [H, W].
    """
    return _step(image, mask >= _GREY) - _step(start, mask >= _GREY)


def _step(pixels: Pixels, inside: Region) -> float:
    steps = [np.abs(np.diff(pixels, axis=axis))[np.diff(inside, axis=axis)] for axis in (0, 1)]
    return float(np.concatenate(steps).mean())


def regions(mask: Image.Image) -> dict[str, Region]:
    """The pixels [H, W] that are inside a mask, and those at its rim."""
    width = max(1, round(_RIM * min(mask.size)))
    hard = mask.point([0] * _GREY + [255] * (256 - _GREY))
    grown, shrunk = (hard.filter(kind(2 * width + 1)) for kind in (ImageFilter.MaxFilter, ImageFilter.MinFilter))
    return {"inside": np.asarray(hard) > 0, "rim": (np.asarray(grown) > 0) & (np.asarray(shrunk) == 0)}


def crop(image: Image.Image, region: Region) -> Image.Image:
    """The smallest box of an image that has a region [H, W] whole, grey outside the region."""
    rows, columns = (np.flatnonzero(region.any(axis)) for axis in (1, 0))
    pixels = np.where(region[..., None], np.asarray(image.convert("RGB")), np.uint8(_GREY))
    return Image.fromarray(pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])


class InpaintingScorer:
    """Scores arms that inpaint, in a study's primary feature space, on `device`."""

    def __init__(self, study: Study, primary: Space, device: torch.device):
        self.study, self.primary = study, primary
        self._load = cache(lambda: load_extractor(study.features.extractors[primary.settings.extractor], device))
        self._of_reference: dict[str, Tensor] = {}

    def __call__(self, arm: Arm, images: list[Image.Image], clusters: Tensor | None) -> InpaintingScores:
        """The scores of an arm's images. Raises InputError for start images or masks that cannot be read."""
        size = images[0].size
        masks = _masks(arm, size)(range(len(images)))
        starts = [_fitted(start, size) for start in _starts(arm, len(images))]
        triples = [
            [np.asarray(one, dtype=np.float64) for one in triple]
            for triple in zip((image.convert("RGB") for image in images), starts, masks, strict=True)
        ]
        columns = {
            score.__name__: torch.tensor([score(*triple) for triple in triples], dtype=torch.float64)
            for score in (outside_change, rim_step)
        }
        found = {name: self._mean(values, clusters) for name, values in columns.items()}
        for name in ("inside", "rim"):
            real = self._reference(arm, name, masks)
            own = self._embedded(zip(images, masks, strict=True), name)
            space = Space(self.primary.settings, real, self.primary.images)
            row = metric(f"fd_{name}")
            found |= set_metrics([row], space(own), space.reference, self.study.metrics, clusters)
        return InpaintingScores(columns, found)

    def _mean(self, values: Tensor, clusters: Tensor | None) -> Interval:
        settings, known = self.study.metrics, ~values.isnan()
        belongs = None if clusters is None else clusters[known]
        return mean_interval(values[known], settings.resamples, settings.level, settings.seed, belongs)

    def _reference(self, arm: Arm, region: str, masks: list[Image.Image]) -> Tensor:
        """Vectors [M, D] of the reference set's images in the same masks, which are repeated where it has more."""
        assert arm.inpaint is not None
        key = f"{region} {arm.inpaint.model_dump_json()} {masks[0].size}"
        if arm.inpaint.column is not None or key not in self._of_reference:
            real = decode_images(read_set(REFERENCE_SET, ["image"]))
            pairs = ((_fitted(image, masks[0].size), masks[k % len(masks)]) for k, image in enumerate(real))
            self._of_reference[key] = self._embedded(pairs, region)
        return self._of_reference[key]

    def _embedded(self, pairs: Iterable[tuple[Image.Image, Image.Image]], region: str) -> Tensor:
        return embed_images(self._load(), (crop(image, regions(mask)[region]) for image, mask in pairs))


def inpainting_inputs(arm: Arm) -> Mapping[str, object]:
    """What determines the scores of an arm's inpainting besides its images and the reference set. Raises InputError."""
    if arm.inpaint is None:
        return {}
    file = arm.inpaint.file
    return {
        "mask": arm.inpaint.model_dump(),
        "file": None if file is None else file_digest(Path(file)),
        "start": set_fingerprint(_start_folder(arm)),
    }


def _start_folder(arm: Arm) -> Path:
    start = arm.image_to_image
    assert start is not None  # an arm that inpaints has one
    return Path(start.start) if start.is_folder else SETS / start.start


def _starts(arm: Arm, images: int) -> Iterable[Image.Image]:
    return decode_images(read_set(_start_folder(arm), ["image"]).slice(0, images))


def _masks(arm: Arm, size: tuple[int, int]) -> Masks:
    assert arm.inpaint is not None
    assert arm.image_to_image is not None
    return Masks(arm.inpaint, arm.image_to_image, size, "inpaint")


def _fitted(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    # As generation does it (pipeline/generation/arm_generator.py).
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)
