"""Two images of one seed: under a slider, and the baseline's in the place of another for as long as a key is held."""

from collections.abc import Callable
from typing import Any

import pytest
from gallery_page import cell, source
from playwright.sync_api import Page, expect
from report_browser import Visit
from report_numbers import ARMS

LAYOUT = """() => [...document.querySelectorAll("#gallery-table :is(tr, th, td, button, button > img), dialog *")]
  .filter((element) => !element.closest(".held"))
  .map((element) => { const box = element.getBoundingClientRect(); return [box.x, box.y, box.width, box.height]; })"""


def layout(page: Page) -> Any:
    """Where everything of the table and of the large view is, but what is laid over an image."""
    return page.evaluate(LAYOUT)


def open_wipe(page: Page) -> Any:
    cell(page, 1, 1).click()
    page.locator("dialog select").select_option(ARMS[0])
    return page.get_by_role("slider")


def test_the_slider_moves_by_keyboard_and_says_where_it_is(visit: Visit) -> None:
    page = visit.page
    slider = open_wipe(page)
    other = page.locator("dialog .other")
    assert other.get_attribute("src") == source(page, 1, 0)
    assert slider.get_attribute("aria-label") == "Wipe from unguided to cfg_3"
    slider.focus()
    for key, value in (("ArrowRight", 51), ("ArrowLeft", 50), ("End", 100), ("Home", 0), ("ArrowUp", 1)):
        page.keyboard.press(key)
        assert slider.input_value() == str(value), key
        assert slider.get_attribute("aria-valuetext") == f"{value} % cfg_3, {100 - value} % unguided"
        assert other.evaluate("image => getComputedStyle(image).clipPath").endswith(f" {value}%)" if value else " 0%)")
    assert page.locator("dialog h2").inner_text() == "cfg_3, seed 101", "arrow keys of the slider go to no neighbour"


def test_the_handle_is_where_the_mouse_is(visit: Visit) -> None:
    page = visit.page
    slider = open_wipe(page)
    box = slider.bounding_box()
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 0.5 * box["height"])
    page.mouse.down()
    assert abs(int(slider.input_value()) - 25) <= 1
    page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 0.5 * box["height"])
    page.mouse.up()
    assert abs(int(slider.input_value()) - 75) <= 1


def test_the_wipe_goes_on_to_the_neighbours_and_ends_at_the_arm_itself(visit: Visit) -> None:
    page = visit.page
    open_wipe(page)
    page.locator("dialog").get_by_role("button", name="Image below").click()
    assert page.locator("dialog .other").get_attribute("src") == source(page, 2, 0)
    page.locator("dialog").get_by_role("button", name="Image to the left").click()
    assert page.get_by_role("slider").count() == 0, "unguided is not compared with itself"
    page.locator("dialog").get_by_role("button", name="Image to the right").click()
    assert page.get_by_role("slider").count() == 1
    page.locator("dialog select").select_option("")
    assert page.get_by_role("slider").count() == 0


def key(page: Page) -> tuple[Callable[[], None], Callable[[], None]]:
    cell(page, 1, 1).focus()
    return lambda: page.keyboard.down("b"), lambda: page.keyboard.up("b")


def mouse(page: Page) -> tuple[Callable[[], None], Callable[[], None]]:
    cell(page, 1, 1).hover()
    return page.mouse.down, page.mouse.up


@pytest.mark.parametrize("how", [key, mouse])
def test_held_over_an_image_the_baseline_shows_in_its_place_and_nothing_moves(visit: Visit, how: Any) -> None:
    page = visit.page
    press, release = how(page)
    before = layout(page)
    press()
    over = cell(page, 1, 1).locator(".held img")
    over.wait_for()
    assert over.get_attribute("src") == source(page, 1, 0)
    assert over.bounding_box() == cell(page, 1, 1).locator("> img").bounding_box()
    assert cell(page, 1, 1).locator(".held").inner_text() == "unguided"
    assert layout(page) == before
    release()
    expect(page.locator(".held")).to_have_count(0)
    assert layout(page) == before
    assert not page.locator("dialog").is_visible(), "what ends a hold is no click"
    cell(page, 1, 1).click()
    assert page.locator("dialog").is_visible()


def test_held_in_the_large_view_the_baseline_shows_and_nothing_moves(visit: Visit) -> None:
    page = visit.page
    cell(page, 1, 1).click()
    before = layout(page)
    large = page.locator("dialog .shown")
    for press, release in (
        (lambda: page.keyboard.down("b"), lambda: page.keyboard.up("b")),
        (lambda: (large.hover(), page.mouse.down()), page.mouse.up),
    ):
        press()
        over = page.locator("dialog .held img")
        over.wait_for()
        assert over.get_attribute("src") == source(page, 1, 0)
        assert over.bounding_box() == large.bounding_box()
        assert layout(page) == before
        release()
        expect(page.locator(".held")).to_have_count(0)
    assert layout(page) == before


def test_trajectories_are_compared_at_the_same_noise_level(visit: Visit) -> None:
    page = visit.page
    images = page.locator("#trajectory-table tbody tr").nth(0).locator("img")
    page.locator("#trajectory-table tbody tr").nth(1).locator("button").nth(1).click()
    page.locator("dialog select").select_option(ARMS[0])
    assert page.locator("dialog .other").get_attribute("src") == images.nth(1).get_attribute("src")
    assert not page.get_by_role("button", name="Copy parameters").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_the_large_view_fits_and_its_handle_follows_the_finger(
    browser: Any, page_file: Any, scheme: str
) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 800}, color_scheme=scheme, has_touch=True)
    page = context.new_page()
    page.goto(f"{page_file.as_uri()}#gallery?image=cfg_3:101&with=unguided")
    slider = page.get_by_role("slider")
    box = slider.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390
    page.touchscreen.tap(box["x"] + 0.3 * box["width"], box["y"] + 0.5 * box["height"])
    assert abs(int(slider.input_value()) - 30) <= 2
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    context.close()
