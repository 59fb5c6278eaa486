"""What inpainting did is told apart by where: inside the mask, outside and at the rim."""

import numpy as np
import pytest
from PIL import Image

from eval.scorers.inpainting import crop, outside_change, regions, rim_step

MASK = np.zeros((32, 32))
MASK[8:24, 8:24] = 255


def ramp() -> np.ndarray:
    """An image whose steps are all alike: 2 levels from column to column."""
    return np.repeat((2.0 * np.arange(32))[None, :, None], 32, 0).repeat(3, 2)


def test_a_change_inside_is_none_outside() -> None:
    image = ramp()
    image[10:20, 10:20] = 200
    assert outside_change(image, ramp(), MASK) == 0
    image[0] += 32
    assert outside_change(image, ramp(), MASK) == pytest.approx(32 * 32 / (32 * 32 - 16 * 16))


def test_a_soft_edge_counts_by_what_it_keeps() -> None:
    soft = np.full((32, 32), 255.0)
    soft[:2] = [[0], [51]]
    image = ramp()
    image[:2] += [[[10]], [[20]]]
    assert outside_change(image, ramp(), soft) == pytest.approx((10 + 0.8 * 20) / 1.8)


def test_a_seam_raises_the_step_at_the_rim_and_a_continuation_does_not() -> None:
    seamless, seam = ramp(), ramp()
    seamless[12:20, 12:20] = 0  # changed well inside
    seam[8:24, 8:24] += 50
    assert rim_step(seamless, ramp(), MASK) == 0
    # Up and down by 50; to the left by 50 - 2, since the ramp falls there, and to the right by 50 + 2 - 2.
    assert rim_step(seam, ramp(), MASK) == pytest.approx((32 * 50 + 16 * 50 + 16 * 46) / 64)


def test_the_rim_lies_on_both_sides_of_the_edge() -> None:
    found = regions(Image.fromarray(MASK.astype(np.uint8)))
    assert found["inside"].sum() == 16 * 16
    assert found["rim"].sum() == 18 * 18 - 14 * 14
    whole_width = np.zeros((32, 32), dtype=np.uint8)
    whole_width[:16] = 255
    assert regions(Image.fromarray(whole_width))["rim"].sum() == 2 * 32, "the canvas's own edge is no rim"


def test_a_crop_is_the_smallest_box_and_grey_outside_the_region() -> None:
    region = np.zeros((32, 32), dtype=bool)
    region[4:8, 10:20] = True
    region[5, 12] = False
    found = np.asarray(crop(Image.new("RGB", (32, 32), "red"), region))
    assert found.shape == (4, 10, 3)
    assert found[1, 2].tolist() == [128] * 3
    assert found[0, 0].tolist() == [255, 0, 0]
