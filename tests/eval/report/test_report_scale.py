"""A study with more images than a page can hold: the page stays small and says what it holds."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser
from report_browser import Visit
from report_study import Inputs

from benchmarks.report import ARMS, IMAGES, MEGABYTES, write_study
from eval.report.page import report
from pipeline.study.study import load_study


def test_a_page_without_all_images_says_which_it_holds_and_where_the_rest_lies(
    own_inputs: Inputs, browser: Browser, tmp_path: Path
) -> None:
    whole = sum(map(len, own_inputs.gallery().blocks))
    path = tmp_path / "index.html"
    path.write_text(own_inputs.report(int(whole * 10 / 18)), "utf-8")
    visit = Visit(browser, path)
    page = visit.page
    told = page.locator("#gallery").inner_text()
    assert "18 images are in this page: the first 1 of 6 seeds under every arm" in told
    assert "data/sets/<arm>/part-*.parquet" in told
    assert page.locator("#gallery-table tbody th").count() == 1, "in the order of seeds only what nobody chose"
    page.locator("#gallery-filters [name=view]").select_option("moved")
    page.locator("#gallery-filters [name=arm]").select_option("1")
    assert page.locator("#gallery-table tbody th b").first.inner_text() == "seed 105", "cfg_3 moved most there"
    assert page.locator('#gallery-table td[title="not in this page"]').count() > 0
    page.close()
    assert visit.messages == []


@pytest.mark.slow
def test_20_arms_of_5000_images_are_below_60_megabytes_and_can_be_looked_through(
    browser: Browser, tmp_path: Path
) -> None:
    path = tmp_path / "index.html"
    path.write_text(report(write_study(tmp_path, load_study()), tmp_path), "utf-8")
    assert path.stat().st_size < MEGABYTES * 1e6
    visit = Visit(browser, path)
    page = visit.page
    assert f" of the study’s {ARMS * IMAGES:,} images are in this page" in page.locator("#gallery").inner_text()
    assert page.locator("#gallery-table thead th").count() == ARMS + 1
    rows = page.locator("#gallery-table tbody tr")
    assert rows.count() < 30, "only the rows in view are in the document"
    page.locator("#gallery-filters [name=view]").select_option("best")
    assert page.locator("#gallery-table td.chosen").count() == rows.count() - 2
    page.locator("#gallery-scroll").evaluate("element => { element.scrollTop = element.scrollHeight; }")
    page.wait_for_function(
        "() => Number([...document.querySelectorAll('#gallery-table tr[aria-rowindex]')].at(-1).ariaRowIndex) > 100"
    )
    assert rows.count() < 30
    page.locator("#gallery-filters [name=text]").fill("number 7,")
    assert page.locator("#gallery-table tbody th").count() == 1
    page.locator("#gallery-table tbody button").first.click()
    assert page.locator("dialog").is_visible()
    page.close()
    assert visit.messages == []
    assert visit.requests == [path.as_uri()]
