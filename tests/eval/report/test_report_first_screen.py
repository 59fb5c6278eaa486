"""The first screen: on a laptop and on a phone, light and dark, the answer, the figures and the images are in sight."""

import base64
import csv
import io
import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from xml.etree import ElementTree

import pytest
from playwright.sync_api import Browser, Locator
from report_browser import Visit
from report_numbers import ARMS
from report_study import Inputs

from pipeline.results.answer import answer
from pipeline.results.comparison import Comparison

LAPTOP, PHONE = (1280, 800), (390, 844)


@pytest.fixture(params=product((LAPTOP, PHONE), ("light", "dark")), ids=lambda one: f"{one[0][0]}-{one[1]}")
def first_screen(request: pytest.FixtureRequest, browser: Browser, page_file: Path) -> Iterator[Visit]:
    """The page as it opens; afterwards that it was silent and fetched nothing."""
    size, scheme = request.param
    visit = Visit(browser, page_file, scheme, size)
    yield visit
    visit.page.close()
    assert visit.messages == []
    assert visit.requests == [page_file.as_uri()]


def in_sight(place: Locator) -> bool:
    """Whether all of an element lies within the window as the page opens."""
    box, size = place.bounding_box(), place.page.viewport_size
    assert box is not None
    assert size is not None
    return (
        box["x"] >= 0
        and box["y"] >= 0
        and box["x"] + box["width"] <= size["width"]
        and box["y"] + box["height"] <= size["height"]
    )


def test_question_answer_three_figures_and_three_rows_of_images_are_in_sight(
    first_screen: Visit, inputs: Inputs
) -> None:
    page = first_screen.page
    found = answer(Comparison(**json.loads(inputs.comparison.read_text())))
    assert page.locator("#answer h1").inner_text() == found.question
    assert page.locator("#answer .lead").inner_text() == found.lead
    assert page.locator("#answer .details").inner_text() == " ".join(found.details)
    for place in ("#answer h1", "#answer .lead", "#panel-direction svg", "#panel-shift svg", "#panel-price svg"):
        assert in_sight(page.locator(place)), place
    rows = page.locator(".same-seeds tbody tr")
    assert rows.count() == 3
    for k in range(3):
        images = rows.nth(k).locator("img:visible")
        assert images.count() == len(ARMS)
        for image in images.all():
            assert in_sight(image)
            assert image.evaluate("image => image.naturalWidth") == 64


def test_small_figures_have_no_text_beyond_their_edge_and_none_over_another(first_screen: Visit) -> None:
    overlaps = first_screen.page.evaluate(
        """() => [...document.querySelectorAll(".panels svg")].flatMap((svg) => {
          const frame = svg.getBoundingClientRect();
          const texts = [...svg.querySelectorAll("text")];
          const boxes = texts.map((text) => [text.textContent, text.getBoundingClientRect()]);
          const apart = (a, b) => a.left >= b.right || b.left >= a.right
            || a.top + 2 >= b.bottom - 2 || b.top + 2 >= a.bottom - 2;
          const outside = boxes.filter(([, box]) => box.left < frame.left - 1 || box.right > frame.right + 1);
          const over = boxes.flatMap(([one, a], k) => boxes.slice(k + 1)
            .filter(([, b]) => !apart(a, b))
            .map(([other]) => `${one} | ${other}`));
          return [...outside.map(([text]) => text), ...over];
        })"""
    )
    assert overlaps == []


def test_the_first_screen_needs_no_script(browser: Browser, page_file: Path) -> None:
    page = browser.new_page(java_script_enabled=False, viewport={"width": 1280, "height": 800})
    page.goto(page_file.as_uri())
    assert in_sight(page.locator("#panel-shift svg"))
    assert in_sight(page.locator(".same-seeds img").last)
    page.close()


def test_caveats_say_which_networks_and_seeds_and_link_to_what_is_folded(browser: Browser, page_file: Path) -> None:
    visit = Visit(browser, page_file)
    page = visit.page
    assert page.locator(".caveats").inner_text().startswith("Toy networks, 64x64. 2000 seeds per arm")
    chosen = page.locator(".chosen").inner_text()
    assert "chosen by number: how far negative_long moved the image of unguided" in chosen
    for name, anchor in (("How sure?", "how-sure"), ("Method", "method"), ("All numbers", "numbers")):
        page.locator(".caveats a", has_text=name).click()
        page.locator(f"#{anchor}").wait_for(state="visible")
    page.close()
    assert visit.messages == []


def contents(visit: Visit) -> dict[str, str]:
    """The files that the buttons save, by their extension, as they arrive."""
    found = {}
    for link in visit.page.locator(".downloads a").all():
        with visit.page.expect_download() as arriving:
            link.click()
        name = arriving.value.suggested_filename
        found[name.rpartition(".")[2]] = Path(arriving.value.path()).read_text("utf-8")
        assert name.startswith("guidedrift-smoke.")
    return found


def test_figure_table_and_citation_are_saved_as_files(visit: Visit) -> None:
    found = contents(visit)
    assert set(found) == {"svg", "csv", "md", "tex", "bib"}
    figure = ElementTree.fromstring(found["svg"])  # noqa: S314 (our own)
    titles = [text.text for text in figure.iter("{http://www.w3.org/2000/svg}text") if text.get("class") == "title"]
    assert titles == ["Same direction?", "Does it shift the distribution?", "What does it cost and bring?"]
    rows = list(csv.DictReader(io.StringIO(found["csv"])))
    assert [row["arm"] for row in rows] == list(ARMS[1:])
    # 6.2 squared units, and two sets of real images are 2.1 apart.
    assert float(rows[0]["shift"]) == pytest.approx(6.2 / 2.1, rel=1e-5)
    assert (rows[0]["shift_settled"], rows[1]["shift_settled"]) == ("yes", "no")
    assert (rows[0]["variety"], rows[0]["variety_low"]) == ("-0.19", "-0.29")
    assert rows[0]["quality"] == "", "no verdict was asked for"
    assert rows[0]["evaluations"] == "2"
    lines = found["md"].splitlines()
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1
    assert "| negative_long | *0.6 (" in found["md"], "unsettled numbers are in italics"
    assert found["tex"].count(r"\\") == 3
    assert r"negative\_long & \textit{0.6 (" in found["tex"]
    assert "parameters ffffffffffffffff, main network aaaaaaaaaaaaaaaa" in found["bib"]


def test_the_saved_figure_opens_by_itself(browser: Browser, visit: Visit, tmp_path: Path) -> None:
    address = visit.page.locator(".downloads a").first.get_attribute("href")
    assert address is not None
    path = tmp_path / "figure.svg"
    path.write_bytes(base64.b64decode(address.partition(",")[2]))
    page = browser.new_page()
    page.goto(path.as_uri())
    assert page.locator("text.question").text_content() == visit.page.locator("#answer h1").inner_text()
    assert page.locator("g.mark circle").count() == visit.page.locator("#answer g.mark circle").count() > 8
    page.close()


def test_folded_parts_open_for_paper_and_close_again(browser: Browser, page_file: Path) -> None:
    visit = Visit(browser, page_file)
    page = visit.page
    opened = page.locator("details.part[open]")
    assert opened.count() == 0
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert opened.count() == page.locator("details.part").count() > 8
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert opened.count() == 0
    page.close()
    assert visit.messages == []
