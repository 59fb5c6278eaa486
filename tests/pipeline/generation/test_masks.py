"""Masks are white where images are generated, and refused where they would change nothing or keep nothing."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from datasets import Features, Image, Value
from PIL import Image as PillowImage

from pipeline.errors import InputError
from pipeline.generation.masks import Masks, box_mask, polygon_mask
from pipeline.storage.shards import write_shard
from pipeline.study.inpaint import Inpaint
from pipeline.study.sampler import ImageToImage

SIZE = (32, 16)
START = ImageToImage.model_validate({"from": "kept/starts", "strength": 1.0})


@pytest.fixture(autouse=True)
def _empty_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def masks(size: tuple[int, int] = SIZE, **how: object) -> Masks:
    return Masks(Inpaint.model_validate(how), START, size, "arms.a.inpaint")


def pixels(mask: PillowImage.Image) -> np.ndarray:
    return np.asarray(mask)


def half(size: tuple[int, int] = SIZE) -> PillowImage.Image:
    """A mask of the left half."""
    return box_mask((0, 0, 0.5, 1), size)


def refused(found: Masks, unit: int = 1, images: int = 0) -> str:
    with pytest.raises(InputError) as raised:
        found.check(unit, images)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_box_is_white_where_the_centres_of_its_pixels_are() -> None:
    mask = pixels(box_mask((0.25, 0, 0.5, 0.5), SIZE))
    assert mask.shape == (16, 32)
    assert (mask[:8, 8:16] == 255).all()
    assert mask.sum() == 255 * 8 * 8


def test_a_rectangle_of_corners_is_the_box() -> None:
    rectangle = polygon_mask([(0.25, 0), (0.5, 0), (0.5, 0.5), (0.25, 0.5)], SIZE)
    differing = (pixels(rectangle) != pixels(box_mask((0.25, 0, 0.5, 0.5), SIZE))).sum()
    assert differing <= 8 + 8 + 1, "but for pixels that the edge cuts"


def test_a_triangle_has_about_its_area() -> None:
    triangle = pixels(polygon_mask([(0, 0), (1, 0), (0, 1)], (64, 64)))
    assert abs((triangle == 255).mean() - 0.5) < 0.02
    assert triangle[0, 0] == 255
    assert triangle[-1, -1] == 0


def test_a_feathered_edge_fades_about_where_the_hard_one_is() -> None:
    (soft,) = masks(box=(0, 0, 0.5, 1), feather=0.1)(range(1))
    row = pixels(soft)[8].astype(int)
    assert row[0] == 255
    assert row[-1] == 0
    assert (np.diff(row) <= 0).all()
    assert 0 < row[16] < 128 <= row[15] < 255


def test_a_file_is_the_mask_of_every_image() -> None:
    half().convert("RGB").save("mask.png")
    found = masks(file="mask.png")(range(3, 5))
    assert [pixels(one).tolist() for one in found] == [pixels(half()).tolist()] * 2


def saved(image: PillowImage.Image) -> str:
    image.save("mask.png")
    return "mask.png"


def test_files_that_are_no_masks_are_refused_by_name() -> None:
    key = "arms.a.inpaint.file mask.png"
    assert refused(masks(file="mask.png")) == f"{key} cannot be read (No such file or directory); put the mask there"
    Path("mask.png").write_bytes(b"no image")
    assert refused(masks(file="mask.png")).startswith(f"{key} is not a readable mask (it is not a PNG image")
    assert refused(masks(file=saved(half((16, 32))))) == (
        f"{key} has 16x32 pixels and the canvas 32x16; save it in that size"
    )
    assert refused(masks(file=saved(PillowImage.new("L", SIZE)))).startswith(
        f"{key} is empty: none of its 32x16 pixels"
    )
    assert refused(masks(file=saved(PillowImage.new("L", SIZE, 255)))).startswith(f"{key} is full: all of its 32x16")


def test_a_box_that_no_latent_is_inside_of_is_empty() -> None:
    between = masks((64, 64), box=(9 / 64, 9 / 64, 15 / 64, 15 / 64))
    between.check(1)
    assert "arms.a.inpaint.box is empty: none of its 64x64 pixels in positions of 8x8" in refused(between, unit=8)


def test_a_feather_that_leaves_nothing_inside_is_refused() -> None:
    said = refused(masks((64, 64), box=(0.45, 0.45, 0.55, 0.55), feather=0.2))
    assert said.startswith("arms.a.inpaint.box is empty")
    assert said.endswith("make it larger, or feather less")


def png(image: PillowImage.Image) -> dict[str, object]:
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return {"bytes": buffer.getvalue(), "path": None}


def starts(found: Sequence[PillowImage.Image]) -> None:
    features = Features({"image_id": Value("string"), "image": Image(), "mask": Image()})
    columns: dict[str, list[object]] = {
        "image_id": [f"s-{k}" for k in range(len(found))],
        "image": [png(PillowImage.new("RGB", (64, 32), "blue"))] * len(found),
        "mask": [png(mask) for mask in found],
    }
    write_shard(Path("kept/starts/part-00000.parquet"), columns, features, "made by hand")


def test_a_column_has_a_mask_for_every_image_which_is_resized_as_its_image_is() -> None:
    starts([half((64, 32)), box_mask((0.5, 0, 1, 1), (64, 32))])
    found = masks(column="mask")
    found.check(images=2)
    assert [pixels(one).tolist() for one in found(range(1, 2))] == [pixels(box_mask((0.5, 0, 1, 1), SIZE)).tolist()]


def test_columns_that_hold_no_masks_are_refused_by_image() -> None:
    starts([half((64, 32)), half((32, 32))])
    key = "arms.a.inpaint.column"
    assert refused(masks(column="mask"), images=2) == (
        f"{key} mask of image 1 has 32x32 pixels and its image 64x32; save it in that size"
    )
    masks(column="mask").check(images=1)
    assert refused(masks(column="area"), images=1) == (
        f"{key} area does not hold images in kept/starts; its columns are image_id, image, mask"
    )
    assert "image_id does not hold images" in refused(masks(column="image_id"), images=1)
    starts([half((64, 32)), PillowImage.new("L", (64, 32))])
    assert refused(masks(column="mask"), images=2).startswith(f"{key} mask of image 1 is empty")
