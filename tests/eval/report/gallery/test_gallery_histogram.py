"""The histogram of the chosen score stands beside its range, marks it, and sets it."""

from gallery_page import choose, seeds
from playwright.sync_api import Page
from report_browser import Visit


def label(page: Page) -> str:
    return page.locator("#gallery-histogram").get_attribute("aria-label") or ""


def marked(page: Page) -> tuple[float, float]:
    """Where the marked range begins and how wide it is, of 160."""
    clip = page.locator("#gallery-range rect")
    return float(clip.get_attribute("x") or "nan"), float(clip.get_attribute("width") or "nan")


def test_the_histogram_counts_the_images_of_the_chosen_arm_and_marks_the_range(visit: Visit) -> None:
    page = visit.page
    assert label(page) == "Histogram of the score from 20 to 25.2; 18 of 18 images in the range"
    assert page.locator("#gallery-histogram line").count() == 0
    choose(page, arm="1", score="p_malformed")
    assert label(page) == "Histogram of the score from 0 to 0.5; 6 of 6 images in the range"
    assert page.locator("#gallery-histogram .all rect").count() == 6
    assert marked(page) == (0, 160)
    choose(page, low="0.1", high="0.35")
    assert label(page).endswith("; 3 of 6 images in the range")
    assert marked(page) == (32, 80)
    assert page.locator("#gallery-histogram line").count() == 2
    assert seeds(page) == [1, 2, 3]


def test_a_range_outside_every_score_and_scores_without_a_number_are_shown(visit: Visit) -> None:
    page = visit.page
    choose(page, score="realism", arm="1")
    assert label(page).endswith("; 5 of 5 images in the range"), "the realism of a copy is infinite"
    choose(page, low="90")
    assert label(page).endswith("; 0 of 5 images in the range")
    assert marked(page)[1] == 0


def test_a_range_is_dragged_across_the_histogram(visit: Visit) -> None:
    page = visit.page
    choose(page, arm="1", score="p_malformed")
    page.locator("#gallery-histogram").scroll_into_view_if_needed()
    box = page.locator("#gallery-histogram").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + 10)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 10)
    page.mouse.up()
    low, high = (float(page.locator(f"#gallery-filters [name={name}]").input_value()) for name in ("low", "high"))
    assert abs(low - 0.15) < 0.01
    assert abs(high - 0.35) < 0.01
    assert seeds(page) == [2, 3]
