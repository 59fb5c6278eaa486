"""A link shows what its sender saw: filters, columns, layout and the large view are in the page's address."""

from collections.abc import Callable
from pathlib import Path

import pytest
from gallery_page import cell, choose, fragment, heads, row_heads, seeds, wait_for_fragment
from playwright.sync_api import Browser, Page
from report_browser import Visit

Opened = Callable[[str], Page]


@pytest.fixture
def opened(browser: Browser, page_file: Path):
    """Opens the page at a fragment; afterwards that it was silent."""
    visits = []

    def at(text: str) -> Page:
        visits.append(Visit(browser, page_file, fragment=text))
        return visits[-1].page

    yield at
    for visit in visits:
        visit.page.close()
        assert visit.messages == []


def test_every_choice_is_in_the_address_and_comes_back_from_it(visit: Visit, opened: Opened) -> None:
    page = visit.page
    assert fragment(page) == "", "a page in which nothing was chosen keeps its address"
    choose(page, view="worst", score="aesthetic", low="2.6", high="4.6", arm="1", kind="3")
    page.locator("#gallery-columns summary").click()
    page.locator("#gallery-columns").get_by_label("unguided", exact=True).click()
    page.locator("#gallery-columns").get_by_role("button", name="Move negative_long left").click()
    cell(page, 0, 1).click()
    page.locator("dialog select").select_option("unguided")
    expected = (
        "#gallery?view=worst&score=aesthetic&low=2.6&high=4.6&kind=3&arm=cfg_3"
        "&columns=negative_long,cfg_3&image=cfg_3:102&with=unguided"
    )
    wait_for_fragment(page, expected)
    link = opened(expected)
    assert (heads(link), seeds(link)) == (["negative_long", "cfg_3"], [2])
    assert link.locator("dialog h2").inner_text() == "cfg_3, seed 102"
    assert link.get_by_role("slider").get_attribute("aria-label") == "Wipe from unguided to cfg_3"
    assert link.locator("#gallery-filters [name=arm]").input_value() == "1"
    link.keyboard.press("Escape")
    wait_for_fragment(link, expected.partition("&image")[0])
    assert link.locator("#gallery").evaluate("section => Math.abs(section.getBoundingClientRect().top) < innerHeight")


def test_a_link_opens_a_layout_with_scale_as_an_axis(opened: Opened) -> None:
    page = opened("#gallery?layout=scales&seed=103&columns=negative_long,unguided")
    assert page.locator("#gallery-status").inner_text() == "Seed 103: 2 methods at 2 scales."
    assert row_heads(page) == ["cfg", "negative"]


def test_back_and_forward_restore_what_was_shown(visit: Visit) -> None:
    page = visit.page
    choose(page, label="legit_human")
    assert seeds(page) == [1]
    choose(page, layout="method")
    cell(page, 0, 1).click()
    assert page.locator("dialog").is_visible()
    page.go_back()
    assert not page.locator("dialog").is_visible()
    assert heads(page) == ["scale 1", "scale 3"]
    page.go_forward()
    assert page.locator("dialog h2").inner_text() == "cfg_3, seed 101"
    page.go_back()
    page.go_back()
    assert heads(page)[0] == "unguided"
    page.go_back()
    assert seeds(page) == list(range(6))
    assert fragment(page) == ""
    page.go_forward()
    assert seeds(page) == [1]


def test_closing_the_large_view_goes_back_to_the_address_before_it(visit: Visit) -> None:
    page = visit.page
    choose(page, view="moved")
    cell(page, 0, 1).click()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    wait_for_fragment(page, "#gallery?view=moved&image=cfg_3:102")
    page.keyboard.press("Escape")
    wait_for_fragment(page, "#gallery?view=moved")
    page.go_back()
    assert fragment(page) == "", "walking through the large view left nothing to go back through"


def test_typing_and_links_to_sections_leave_the_gallery_as_it_is(visit: Visit) -> None:
    page = visit.page
    choose(page, text="scenery")
    wait_for_fragment(page, "#gallery?text=scenery")
    page.locator('nav a[href="#provenance"]').click()
    assert fragment(page) == "#provenance"
    assert seeds(page) == [3]
    page.locator('nav a[href="#gallery"]').click()
    assert seeds(page) == [3]
    page.get_by_role("button", name="Reset").click()
    wait_for_fragment(page, "#gallery?")
    assert seeds(page) == list(range(6))


@pytest.mark.parametrize(
    "text",
    [
        "#gallery?view=none&score=x&arm=nobody&kind=99&layout=cube&columns=nobody,<b>&image=nobody:100&with=x",
        "#gallery?image=cfg_3:7&columns=,,",
        "#gallery?text=%3Cimg src=x onerror=alert(1)%3E&label=constructor&method=__proto__&seed=NaN",
        "#gallery?%ZZ&&==&image=:::&low=abc&__proto__=1",
    ],
)
def test_a_link_that_somebody_made_up_breaks_nothing(opened: Opened, text: str) -> None:
    page = opened(text)
    assert heads(page) == ["unguided", "cfg_3", "negative_long"]
    assert not page.locator("dialog").is_visible()
    assert page.locator("#gallery-filters [name=view]").input_value() == "seeds"
    assert page.locator("img[onerror]").count() == 0
