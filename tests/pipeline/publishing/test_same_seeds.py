"""The same seeds under every arm, as the card begins with them, and the digits of its numbers."""

from pathlib import Path

import pytest
from PIL import Image
from small_study import ARMS, write_study

from pipeline.publishing.digits import in_two_digits
from pipeline.publishing.same_seeds import SEEDS, SIDE, seed_grid
from pipeline.results.interval import Interval
from pipeline.storage.contact_sheet import GAP


@pytest.mark.parametrize(
    ("value", "low", "high", "expected"),
    [
        (0.7134, 0.68, 0.7512, "0.71 (0.68 to 0.75)"),
        (0.71341, 0.71302, 0.71388, "0.7134 (0.7130 to 0.7139)"),
        (123.4, 110, 141, "120 (110 to 140)"),
        (22.35, 22.1, 22.6, "22.4 (22.1 to 22.6)"),
        (0, -0.004, 0.004, "0.000 (-0.004 to 0.004)"),
        (5, 5, 5, "5.0 (5.0 to 5.0)"),
        (0.00123, 0.0008, 0.0016, "0.0012 (0.0008 to 0.0016)"),
    ],
)
def test_numbers_have_two_digits_or_as_many_as_the_interval_shows(
    value: float, low: float, high: float, expected: str
) -> None:
    assert in_two_digits(Interval(value, low, high, 9)) == expected


def test_the_grid_has_the_first_seeds_of_every_arm(tmp_path: Path) -> None:
    write_study(tmp_path)
    grid = seed_grid(tmp_path / "data/sets", ARMS, "unguided")
    side = 64 * (SIDE // 64)
    assert grid.width == len(ARMS) * (side + GAP) + GAP
    bottom = grid.height - GAP - side // 2
    # Red says which arm, green which seed.
    pixels = [grid.getpixel((GAP + column * (side + GAP) + side // 2, bottom)) for column in range(len(ARMS))]
    assert pixels == [(arm * 100, (SEEDS - 1) * 10, 128) for arm in range(len(ARMS))]


def test_large_images_are_made_smaller_in_the_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("small_study.image", lambda arm, seed: Image.new("RGB", (640, 320), (arm, seed, 9)))
    write_study(tmp_path)
    assert seed_grid(tmp_path / "data/sets", ARMS, "unguided").width == len(ARMS) * (SIDE + GAP) + GAP
