"""The interactive page of the mechanisms works from the file alone, and its figures are those of the networks."""

import json

import numpy as np
import pytest
from playwright.sync_api import Browser, Page
from repository_copy import ROOT

from docs.mechanisms_page import embedded
from docs.trajectory import SHOWN, guided, trajectory
from pipeline.guidance.algebra import EMPTY, MAIN

PIXELS = "(canvas) => [...canvas.getContext('2d').getImageData(0, 0, 64, 64).data]"
GUIDED = f"[...document.querySelectorAll('#embedded canvas')].map({PIXELS})"


@pytest.fixture
def page(browser: Browser) -> Page:
    page = browser.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda asked: faults.append(asked.url) if asked.url.startswith("http") else None)
    page.goto((ROOT / "docs/mechanisms.html").as_uri())
    page.wait_for_selector("body[data-ready]")
    assert faults == []
    return page


def test_sliders_change_what_is_shown_by_keyboard(page: Page) -> None:
    before = page.evaluate(GUIDED)
    page.locator("#scale").focus()
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    assert page.locator("#scale-shown").inner_text() == "1"
    plain = page.evaluate(GUIDED)
    own = page.evaluate(f"({PIXELS})(document.getElementById('own'))")
    assert [plain[k] for k in (1, 3, 5)] == [own] * 3, "at scale 1 every guided estimate is the prompt's"
    assert [plain[k] for k in (0, 2, 4)] == [before[k] for k in (0, 2, 4)], "references have no scale"
    page.locator("#step").focus()
    page.keyboard.press("End")
    assert page.locator("#step-shown").inner_text().startswith("20 of 20, noise ")
    page.locator("#noise").focus()
    page.keyboard.press("Home")
    assert page.locator("#noise-shown").inner_text() == "2"
    assert page.locator("#toy figcaption").nth(1).inner_text().startswith("what is sampled: ")


def test_the_page_has_the_trajectory_of_the_shipped_networks(page: Page) -> None:
    data = json.loads(page.locator("#data").text_content() or "")
    found = trajectory()
    assert found.prompt in page.inner_text("body")
    for shown, step in zip(data["steps"], embedded(found), strict=True):
        assert shown["noise"] == step["noise"]
        for name, place in step["places"].items():
            np.testing.assert_allclose(shown["places"][name], place, atol=0.01)


def test_the_plane_holds_a_guided_estimate_on_the_line_through_prompt_and_reference() -> None:
    step = trajectory().steps[10]
    places, share = step.plane()
    assert set(places) == set(SHOWN)
    assert 2 / 3 <= share <= 1, "two of three directions"
    moved = guided(step, EMPTY, 3.0) - step.estimates[MAIN]
    assert np.allclose(moved, 2 * (step.estimates[MAIN] - step.estimates[EMPTY]))
    length = float(np.sqrt(((step.estimates[MAIN] - step.estimates[EMPTY]) ** 2).mean()))
    assert np.hypot(*places[EMPTY]) <= length * (1 + 1e-9)
