"""Digits counted without training, on real hands: right, and moved by nothing that guidance does to a finish."""

from itertools import islice

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from models.tinybooru.fan import digits_by_fan
from pipeline.tinybooru.build import plans
from pipeline.tinybooru.figures import GREETING
from pipeline.tinybooru.flaws import GOOD_QUALITIES, STRUCTURE_FLAWS
from pipeline.tinybooru.image import draw

CHANGES = {
    "sharper": lambda image: image.filter(ImageFilter.UnsharpMask(1, 60, 0)),
    "softer": lambda image: image.filter(ImageFilter.GaussianBlur(0.5)),
    "more contrast": lambda image: ImageEnhance.Contrast(image).enhance(1.4),
    "less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.6),
    "more colour": lambda image: ImageEnhance.Color(image).enhance(1.5),
}


@pytest.fixture(scope="module")
def hands():
    """Real hands of good quality with five digits and with others, and their numbers of digits."""
    waving = (p for p in plans("validation", 0, showing=["waving"]) if p.quality in GOOD_QUALITIES)
    clean = [p for p in islice(waving, 200) if set(p.flaws) <= set(STRUCTURE_FLAWS[1:]) and p.style == GREETING]
    wrong = [p for p in clean if p.structure.digits != 5]
    chosen = [*wrong[:10], *[p for p in clean if p.structure.digits == 5][:30]]
    return [draw(p, 64) for p in chosen], [p.structure.digits for p in chosen]


def counted(images):
    return [digits_by_fan(np.asarray(image)) for image in images]


def test_real_hands_are_counted_rightly(hands):
    images, digits = hands
    right = [found == wanted for found, wanted in zip(counted(images), digits, strict=True)]
    assert sum(right) >= 0.9 * len(right)
    assert len(set(digits)) > 2


@pytest.mark.parametrize("change", CHANGES)
def test_a_finish_moves_no_count(change, hands):
    images = hands[0][:20]
    same = [a == b for a, b in zip(counted(images), counted(map(CHANGES[change], images)), strict=True)]
    assert sum(same) >= 0.9 * len(same)


def test_an_image_without_a_hand_has_no_count():
    assert digits_by_fan(np.full((64, 64, 3), 200, np.uint8)) is None
    assert digits_by_fan(np.asarray(Image.new("RGB", (64, 64), "red"))) is None
