"""The masks of arms that inpaint: grey images as large as the canvas, white where an image is generated."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFilter

from pipeline.errors import InputError, printable
from pipeline.storage.images import DAMAGED, open_image, to_rgb
from pipeline.storage.shards import read_table, shard_paths
from pipeline.study.inpaint import Inpaint
from pipeline.study.sampler import ImageToImage

Size = tuple[int, int]  # width, height
# The least grey that counts as inside, as in diffusers' pipelines.
_INSIDE = 128


class Masks:
    """The masks of one arm's images, of `size` (width, height) in pixels; `key` names its setting in errors."""

    def __init__(self, how: Inpaint, start: ImageToImage, size: Size, key: str):
        self.how, self.start, self.size, self.key = how, start, size, key

    def __call__(self, batch: range) -> list[PillowImage.Image]:
        """The masks of a batch, in mode L. Raises InputError for one that cannot be read or has another size."""
        if self.how.column is None:
            return [self._same] * len(batch)
        return [self._column(k) for k in batch]

    def check(self, unit: int = 1, images: int = 0) -> None:
        """Raise InputError where the first `images` masks cannot be read, or generate nothing or everything.

        `unit` is the side in pixels of what a network can change by itself, a position of its latents.
        """
        if self.how.column is None:
            _check_inside(self._same, f"{self.key}{self._kind}", unit)
            return
        for k in range(min(images, len(self._table))):
            _check_inside(self._column(k), f"{self.key}.column {self.how.column} of image {k}", unit)

    @property
    def _kind(self) -> str:
        kinds = {".box": self.how.box, ".polygon": self.how.polygon}
        return next((kind for kind, shape in kinds.items() if shape is not None), f".file {self.how.file}")

    @cached_property
    def _same(self) -> PillowImage.Image:
        return feathered(self._shape, self.how.feather)

    @property
    def _shape(self) -> PillowImage.Image:
        if self.how.box is not None:
            return box_mask(self.how.box, self.size)
        if self.how.polygon is not None:
            return polygon_mask(self.how.polygon, self.size)
        assert self.how.file is not None
        where = f"{self.key}.file {self.how.file}"
        try:
            content = Path(self.how.file).read_bytes()
        except OSError as error:
            raise InputError(f"{where} cannot be read ({error.strerror}); put the mask there") from None
        mask = _decoded(content, where)
        if mask.size != self.size:
            raise InputError(
                f"{where} has {_pixels(mask.size)} pixels and the canvas {_pixels(self.size)}; save it in that size"
            )
        return mask

    @cached_property
    def _table(self) -> pa.Table:
        column = self.how.column
        assert column is not None
        tables = [read_table(path) for path in shard_paths(Path(self.start.start))]
        for table in tables:
            fields = {field.name: field.type for field in table.schema}
            if fields.get(column) != fields.get("image"):
                raise InputError(
                    f"{self.key}.column {column} does not hold images in {self.start.start}; its columns are "
                    f"{', '.join(fields)}"
                )
        return pa.concat_tables([table.select(["image", column]) for table in tables])

    def _column(self, k: int) -> PillowImage.Image:
        column, table = str(self.how.column), self._table
        where = f"{self.key}.column {column} of image {k}"
        mask = _decoded(table.column(column)[k]["bytes"].as_py(), where)
        started = open_image(table.column("image")[k]["bytes"].as_py())
        if mask.size != started.size:
            raise InputError(
                f"{where} has {_pixels(mask.size)} pixels and its image {_pixels(started.size)}; save it in that size"
            )
        # As its image, which is resized to the canvas, but without new greys.
        fitted = mask if mask.size == self.size else mask.resize(self.size, PillowImage.Resampling.NEAREST)
        return feathered(fitted, self.how.feather)


def box_mask(box: tuple[float, float, float, float], size: Size) -> PillowImage.Image:
    """A mask of a box (left, top, right, bottom) in shares of the canvas: the pixels whose centres are inside."""
    x, y = ((np.arange(side) + 0.5) / side for side in size)
    across, down = (x >= box[0]) & (x < box[2]), (y >= box[1]) & (y < box[3])
    return PillowImage.fromarray((down[:, None] & across[None, :]).astype(np.uint8) * 255)


def polygon_mask(corners: Sequence[tuple[float, float]], size: Size) -> PillowImage.Image:
    """A mask of a polygon whose corners (x, y) are in shares of the canvas, with the pixels on its edge."""
    mask = PillowImage.new("L", size)
    # Pillow counts in centres of pixels.
    ImageDraw.Draw(mask).polygon([(x * size[0] - 0.5, y * size[1] - 0.5) for x, y in corners], fill=255)
    return mask


def feathered(mask: PillowImage.Image, feather: float) -> PillowImage.Image:
    """A mask whose edge fades: a Gaussian of standard deviation `feather`, a share of the shorter side."""
    return mask.filter(ImageFilter.GaussianBlur(feather * min(mask.size))) if feather else mask


def _decoded(content: bytes | None, where: str) -> PillowImage.Image:
    try:
        return to_rgb(open_image(content)).convert("L")
    except (OSError, *DAMAGED) as error:
        raise InputError(f"{where} is not a readable mask ({printable(str(error))[:200]}); save it as PNG") from None


def _check_inside(mask: PillowImage.Image, where: str, unit: int) -> None:
    inside = np.asarray(mask)[::unit, ::unit] >= _INSIDE
    size = f"{_pixels(mask.size)} pixels" + (f" in positions of {unit}x{unit}" if unit > 1 else "")
    if not inside.any():
        raise InputError(
            f"{where} is empty: none of its {size} is white, so nothing would change; make it larger, or feather less"
        )
    if inside.all():
        raise InputError(f"{where} is full: all of its {size} are white, so nothing would be kept; remove inpaint")


def _pixels(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
