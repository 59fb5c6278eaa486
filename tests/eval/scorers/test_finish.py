"""Saturation, contrast and sharpness: known images, and what spoils them."""

import colorsys

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from eval.scorers.finish import finish
from pipeline.tinybooru.image import draw, plan


def flat(colour: tuple[int, int, int]) -> Image.Image:
    return Image.new("RGB", (16, 16), colour)


def test_flat_colours_have_their_saturation_and_no_contrast() -> None:
    colours = [(255, 0, 0), (128, 128, 128), (200, 100, 50), (0, 0, 0), (255, 255, 255)]
    found = finish(flat(colour) for colour in colours)
    expected = [colorsys.rgb_to_hsv(*(c / 255 for c in colour))[1] for colour in colours]
    assert found.saturation.tolist() == pytest.approx(expected)
    assert found.contrast.tolist() == pytest.approx([0] * 5, abs=1e-12)
    assert found.sharpness.tolist() == pytest.approx([0] * 5, abs=1e-12)


def test_half_black_half_white_has_the_greatest_contrast() -> None:
    half = Image.fromarray(np.repeat(np.array([[0, 255]], np.uint8), 8, axis=1).repeat(16, 0))
    assert float(finish([half]).contrast) == pytest.approx(0.5)


def test_one_bright_pixel_has_the_laplacian_of_one_bright_pixel() -> None:
    spot = np.zeros((5, 5), np.uint8)
    spot[2, 2] = 255
    laplacian = np.array([0, 1, 0, 1, -4, 1, 0, 1, 0])
    assert float(finish([Image.fromarray(spot)]).sharpness) == pytest.approx(laplacian.var())


def test_each_spoiling_lowers_its_own_number() -> None:
    images = [draw(plan(0, k), 64) for k in range(12)]
    before = finish(images)
    gray = finish(ImageEnhance.Color(image).enhance(0.5) for image in images)
    pale = finish(ImageEnhance.Contrast(image).enhance(0.5) for image in images)
    blurred = finish(image.filter(ImageFilter.GaussianBlur(0.7)) for image in images)
    assert gray.saturation.mean() < 0.8 * before.saturation.mean()
    assert (pale.contrast < before.contrast).all()
    assert (blurred.sharpness < before.sharpness).all()


def test_images_too_small_for_a_laplacian_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 3x3 pixels, found 2x9"):
        finish([Image.new("RGB", (2, 9))])
    with pytest.raises(ValueError, match="at least 1 image, found 0"):
        finish([])
