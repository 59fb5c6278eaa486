"""A contact sheet shows every image in its place, with its own pixels."""

import numpy as np
import pytest
from PIL import Image

from pipeline.storage.contact_sheet import GAP, grid, same_seed_grid

RED, GREEN, BLUE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0)


def plain(colour: tuple[int, int, int], side: int = 8) -> Image.Image:
    return Image.new("RGB", (side, side), colour)


def test_images_stand_row_by_row_with_a_gap_around_each() -> None:
    sheet = grid([plain(RED), plain(GREEN), plain(BLUE)], columns=2)
    assert sheet.size == (2 * 8 + 3 * GAP, 2 * 8 + 3 * GAP)
    places = [(GAP, GAP), (2 * GAP + 8, GAP), (GAP, 2 * GAP + 8)]
    assert [sheet.getpixel(place) for place in places] == [RED, GREEN, BLUE]
    neutral = sheet.getpixel((0, 0))
    assert isinstance(neutral, tuple)
    assert len(set(neutral)) == 1
    assert sheet.getpixel((2 * GAP + 8, 2 * GAP + 8)) == neutral


def test_enlarging_repeats_pixels_and_invents_no_colours() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    sheet = np.asarray(grid([Image.fromarray(noise)], columns=1, scale=3))
    assert np.array_equal(sheet[GAP:-GAP, GAP:-GAP], noise.repeat(3, axis=0).repeat(3, axis=1))


def test_fewer_images_than_columns_leave_no_empty_columns() -> None:
    assert grid([plain(RED)], columns=8).width == 8 + 2 * GAP


def test_a_column_is_an_arm_and_a_row_is_a_seed() -> None:
    sheet = same_seed_grid([[plain(RED), plain(GREEN)], [plain(BLUE), plain(BLACK)]], ["cfg", "negative"], scale=8)
    header = sheet.height - (2 * 64 + 3 * GAP)
    assert header > 0
    centres = [
        (GAP + 32 + column * (64 + GAP), header + GAP + 32 + row * (64 + GAP)) for row in (0, 1) for column in (0, 1)
    ]
    assert [sheet.getpixel(centre) for centre in centres] == [RED, GREEN, BLUE, BLACK]


def test_the_names_are_drawn_above_their_columns() -> None:
    sheet = same_seed_grid([[plain(RED), plain(RED)]], ["cfg", " "], scale=8)
    header = np.asarray(sheet)[: sheet.height - 64 - 2 * GAP]
    half = header.shape[1] // 2
    assert header[:, :half].min() < 100 < header[:, half:].min()


def test_a_long_name_stays_in_its_column() -> None:
    long = "negative_novelai_human_focus_scale_7"
    sheet = same_seed_grid([[plain(RED), plain(RED)]], [long, " "], scale=8)
    header = np.asarray(sheet)[: sheet.height - 64 - 2 * GAP]
    half = header.shape[1] // 2
    assert header[:, :half].min() < 100 < header[:, half:].min()


@pytest.mark.parametrize(("images", "columns", "scale"), [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_an_empty_sheet_is_refused(images: int, columns: int, scale: int) -> None:
    with pytest.raises(ValueError, match="empty"):
        grid([plain(RED)] * images, columns, scale)


def test_rows_that_do_not_fit_the_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[1\] images do not fit 2 labels"):
        same_seed_grid([[plain(RED)]], ["cfg", "negative"])


def test_an_arm_is_marked_by_a_bar_of_its_colour_above_its_images() -> None:
    rows = [[plain(RED), plain(GREEN)]]
    sheet = same_seed_grid(rows, ["cfg", "negative"], 8, ["#0465AF", "#A84403"])
    header = sheet.height - (64 + 2 * GAP)
    marks = [sheet.getpixel((GAP + 32 + column * (64 + GAP), header - 1)) for column in (0, 1)]
    assert marks == [(4, 101, 175), (168, 68, 3)]
