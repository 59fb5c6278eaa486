"""What inpainting did inside its mask, outside and at the rim, beside the image that it started from.

The part outside is the start image's, so scores of whole images (CLIP score, P(malformed)) of two arms that inpaint the
same images differ by what is inside alone.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import cycle
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from scipy.ndimage import distance_transform_cdt
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
from pipeline.storage.files import file_digest, fingerprint
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
    """The mean absolute change, in levels of 255, of the pixels [H, W, 3] that the mask [H, W] in [0, 255] keeps.

    Those of a soft edge count by the share that is kept.
    """
    kept = 1 - mask / 255
    return float((np.abs(image - start).mean(2) * kept).sum() / kept.sum())


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
    """The pixels [H, W] that are inside a mask, and those at its rim, on both sides of its edge."""
    inside = np.asarray(mask) >= _GREY
    # To the nearest pixel of the other side, in moves of a chess king.
    from_inside, from_outside = (np.asarray(distance_transform_cdt(side, "chessboard")) for side in (inside, ~inside))
    width = max(1, round(_RIM * min(mask.size)))
    return {"inside": inside, "rim": np.where(inside, from_inside, from_outside) <= width}


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

    def __call__(
        self, arm: Arm, images: Callable[[], Iterable[Image.Image]], count: int, clusters: Tensor | None
    ) -> InpaintingScores:
        """The scores of an arm's `count` images, each of which is read several times and none is held.

        Raises InputError for start images or masks that cannot be read.
        """
        size = next(iter(images())).size
        masks = _masks(arm, size)(range(count))
        scores = (outside_change, rim_step)
        rows = [
            [score(*(np.asarray(one, dtype=np.float64) for one in triple)) for score in scores]
            for triple in zip(images(), _starts(arm, count, size), masks, strict=True)
        ]
        columns = dict(
            zip((score.__name__ for score in scores), torch.tensor(rows, dtype=torch.float64).T, strict=True)
        )
        settings = self.study.metrics
        ask = (settings.resamples, settings.level, settings.seed, clusters)
        found = {name: mean_interval(values, *ask) for name, values in columns.items()}
        # One mask for all unless they come from a column.
        own = [regions(mask) for mask in (masks if arm.inpaint and arm.inpaint.column else masks[:1])]
        for name in ("inside", "rim"):
            places = [one[name] for one in own]
            real = self._reference(arm, name, places, size)
            space = Space(self.primary.settings, real, self.primary.images)
            vectors = space(self._embedded(images(), places))
            found |= set_metrics([metric(f"fd_{name}")], vectors, space.reference, settings, clusters)
        return InpaintingScores(columns, found)

    def _reference(self, arm: Arm, name: str, places: Sequence[Region], size: tuple[int, int]) -> Tensor:
        """Vectors [M, D] of the reference set's images in the same places, kept for the arms with the same mask."""
        key = fingerprint([name, size, inpainting_inputs(arm)])
        if key not in self._of_reference:
            real = (_fitted(image, size) for image in decode_images(read_set(REFERENCE_SET, ["image"])))
            self._of_reference[key] = self._embedded(real, places)
        return self._of_reference[key]

    def _embedded(self, images: Iterable[Image.Image], places: Sequence[Region]) -> Tensor:
        """Vectors [N, D] of crops of images, each to its place; places are repeated where there are more images."""
        return embed_images(self._load(), map(crop, images, cycle(places)))


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


def _starts(arm: Arm, count: int, size: tuple[int, int]) -> Iterable[Image.Image]:
    images = decode_images(read_set(_start_folder(arm), ["image"]).slice(0, count))
    return (_fitted(image, size) for image in images)


def _masks(arm: Arm, size: tuple[int, int]) -> Masks:
    assert arm.inpaint is not None
    assert arm.image_to_image is not None
    return Masks(arm.inpaint, arm.image_to_image, size, "inpaint")


def _fitted(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    # As generation does it (pipeline/generation/arm_generator.py).
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)
