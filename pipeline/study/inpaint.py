"""Inpainting: the area of its start image that an arm generates, while everything outside is kept."""

from typing import Annotated

from pydantic import Field, field_validator, model_validator

from pipeline.settings import Settings, inside_project

Share = Annotated[float, Field(ge=0, le=1)]
Point = tuple[Share, Share]

_KINDS = ("box", "polygon", "file", "column")


class Inpaint(Settings):
    """The mask of an arm's images, inside which they are generated. Exactly one of four says where that is.

    `box` (left, top, right, bottom) and `polygon` (its corners, each x and y) are in shares of the canvas, from its
    top left corner. `file` is an image of the canvas's size for all images, and `column` a column of masks of the
    folder of shards that the arm starts from, each of its image's size; both are white where images are generated and
    black where they are kept. `feather` is how far the edge fades: the standard deviation of a Gaussian blur, as a
    share of the canvas's shorter side.
    """

    box: tuple[Share, Share, Share, Share] | None = None
    polygon: tuple[Point, ...] | None = None
    file: str | None = None
    column: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    feather: Annotated[float, Field(ge=0, le=0.25)] = 0.0

    @field_validator("file")
    @classmethod
    def _inside(cls, path: str | None) -> str | None:
        return None if path is None else inside_project(path)

    @model_validator(mode="after")
    def _one_mask(self) -> "Inpaint":
        if sum(getattr(self, kind) is not None for kind in _KINDS) != 1:
            raise ValueError(f"needs exactly one of {', '.join(_KINDS)}")
        return self

    @model_validator(mode="after")
    def _shapes_have_an_area(self) -> "Inpaint":
        if self.box is not None:
            left, top, right, bottom = self.box
            if left >= right or top >= bottom:
                raise ValueError(f"box {list(self.box)} is empty; write left, top, right, bottom with left < right")
            if self.box == (0, 0, 1, 1):
                raise ValueError("box [0, 0, 1, 1] keeps nothing of the start image; remove inpaint, or mask less")
        if self.polygon is not None and abs(_area(self.polygon)) == 0:
            raise ValueError(f"polygon has {len(self.polygon)} corners and no area; write at least 3, not in a line")
        return self


def _area(corners: tuple[Point, ...]) -> float:
    # The shoelace formula.
    following = (*corners[1:], *corners[:1])
    return sum(x * b - a * y for (x, y), (a, b) in zip(corners, following, strict=True)) / 2
