"""The gallery: which images are in the page, how they are found, and how a person goes through them by keyboard."""

import base64
import io
import json
from pathlib import Path

import pyarrow as pa
import pytest
from gallery_page import cell, choose, is_focused, seeds
from PIL import Image as PillowImage
from playwright.sync_api import expect
from report_browser import Visit
from report_numbers import ARMS
from report_study import PAIRS, PROMPTS, Inputs

from eval.report.gallery import gallery
from eval.report.gallery.image_labels import image_labels
from eval.report.gallery.selection import select
from eval.report.gallery.thumbnails import LONGEST_SIDE, thumbnail
from labeling.records import Label, SampledTask

HOSTILE = PROMPTS[0]


@pytest.mark.parametrize("how", ["click", "Enter"])
def test_image_opens_large_and_escape_closes(visit: Visit, how: str) -> None:
    page = visit.page
    dialog, thumbnail = page.locator("dialog"), cell(page, 0, 1)
    assert not dialog.is_visible()
    if how == "click":
        thumbnail.click()
    else:
        thumbnail.focus()
        page.keyboard.press("Enter")
    assert dialog.is_visible()
    assert dialog.locator("h2").inner_text() == "cfg_3, seed 100"
    told = dialog.locator("p").inner_text()
    assert f"prompt: {HOSTILE}" in told
    assert "CLIP score 20.1, Aesthetic 5.01, P(malformed) 0, Realism 1, moved 0 from unguided" in told
    assert dialog.locator("img.shown").get_attribute("src") == thumbnail.locator("img").get_attribute("src")
    assert dialog.locator("img.shown").bounding_box()["width"] > 256  # type: ignore[index]
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    assert is_focused(thumbnail), "focus returns to the image"


def test_arrow_keys_go_through_the_gallery_and_through_the_large_view(visit: Visit) -> None:
    page = visit.page
    cell(page, 0, 0).focus()
    for key, place in (("ArrowRight", (0, 1)), ("ArrowDown", (1, 1)), ("ArrowUp", (0, 1)), ("ArrowUp", (0, 1))):
        page.keyboard.press(key)
        assert is_focused(cell(page, *place)), key
    page.keyboard.press("Enter")
    title = page.locator("dialog h2")
    for key, expected in (
        ("ArrowDown", "cfg_3, seed 101"),
        ("ArrowRight", "negative_long, seed 101"),
        ("ArrowRight", "negative_long, seed 101"),
    ):
        page.keyboard.press(key)
        assert title.inner_text() == expected
    page.keyboard.press("Escape")
    # The browser gives the focus back when it has closed the dialog, which a busy machine does later.
    expect(cell(page, 1, 2), "focus goes to the image that was seen last").to_be_focused()
    assert page.locator('#gallery-table tbody button[tabindex="0"]').count() == 1, "the Tab key stops once"


def test_the_large_view_goes_on_by_its_buttons(visit: Visit) -> None:
    page = visit.page
    cell(page, 0, 0).click()
    page.get_by_role("button", name="Image below").click()
    assert page.locator("dialog h2").inner_text() == "unguided, seed 101"
    page.get_by_role("button", name="Close").click()
    assert not page.locator("dialog").is_visible()


def test_hostile_prompt_is_text_and_nothing_else(visit: Visit) -> None:
    page = visit.page
    assert HOSTILE in page.locator("#gallery-table tbody th").first.inner_text()
    image = cell(page, 0, 0).locator("img")
    assert HOSTILE in (image.get_attribute("title") or "")
    assert HOSTILE.split(",")[0] in page.locator("#trajectory-choice option").first.inner_text()
    choose(page, text="\"quoted\" & 'single', <script>")
    assert seeds(page) == [0], "and it is found as text"
    assert page.locator("img[onerror]").count() == 0
    assert "</script><b>bold</b>" in (page.locator("#arms-table details").text_content() or "")


def test_images_are_pixelated_loaded_and_96_pixels_wide(visit: Visit) -> None:
    image = cell(visit.page, PAIRS - 1, 2).locator("img")
    image.scroll_into_view_if_needed()
    visit.page.wait_for_function("() => document.querySelector('#gallery-table tr:nth-last-child(2) img.pixelated')")
    assert image.evaluate("i => getComputedStyle(i).imageRendering") == "pixelated"
    assert image.evaluate("i => [i.width, i.height]") == [96, 96]


def test_the_gallery_is_filtered_by_prompt_kind_score_and_label(visit: Visit) -> None:
    page = visit.page
    assert seeds(page) == list(range(PAIRS))
    choose(page, text="SCENERY")
    assert seeds(page) == [3]
    assert page.locator("#gallery-status").inner_text() == "1 of 6 rows."
    choose(page, text="no such prompt")
    assert seeds(page) == []
    assert "Reset" in page.locator("#gallery-status").inner_text()
    page.get_by_role("button", name="Reset").click()
    page.wait_for_function("() => document.querySelectorAll('#gallery-table tbody th').length === 6")

    choose(page, arm="1", score="clip_score", low="21.1", high="23.1")
    assert seeds(page) == [1, 2, 3], "cfg_3's scores are 20.1 to 25.1"
    choose(page, kind="3")
    assert seeds(page) == [2], "cfg_3's images 2 and 6 are of the fourth kind"
    choose(page, kind="", low="", high="", label="legit_human")
    assert seeds(page) == [1]
    choose(page, label="undecided")
    assert seeds(page) == [2]
    choose(page, label="none")
    assert seeds(page) == [0, 3, 4, 5]
    choose(page, arm="0", label="legit_human")
    assert seeds(page) == [], "nobody labelled the baseline's images"


def test_images_that_do_not_pass_in_a_row_that_stays_are_pale(visit: Visit) -> None:
    page = visit.page
    assert page.locator("#gallery-table td.outside").count() == 0
    choose(page, score="clip_score", low="21.15")
    assert seeds(page) == [1, 2, 3, 4, 5]
    pale = page.locator("#gallery-table td.outside button")
    assert pale.evaluate_all("buttons => buttons.map(button => button.dataset.row + button.dataset.column)") == [
        "00",
        "01",
    ]
    choose(page, arm="2")
    assert page.locator("#gallery-table td.outside").count() == 0, "the other arms are there to compare with"


def test_views_put_the_best_the_worst_and_the_most_moved_first(visit: Visit) -> None:
    page = visit.page
    for view, score, arm, expected in (
        ("best", "aesthetic", "", [0, 1, 2, 3, 4, 5]),
        ("worst", "aesthetic", "", [5, 4, 3, 2, 1, 0]),
        ("best", "p_malformed", "1", [0, 1, 2, 3, 4, 5]),
        ("best", "clip_score", "1", [5, 4, 3, 2, 1, 0]),
        ("best", "realism", "1", [5, 4, 2, 1, 0]),
        ("moved", "clip_score", "1", [5, 4, 3, 2, 1, 0]),
        ("moved", "clip_score", "", [0, 1, 2, 3, 4, 5]),
    ):
        choose(page, view=view, score=score, arm=arm)
        assert seeds(page) == expected, (view, score, arm)
    chosen = page.locator("#gallery-table td.chosen")
    assert chosen.count() == PAIRS
    assert chosen.first.inner_text() == "★ 10", "the distance that negative_long's first image moved"


def test_labels_stand_in_the_large_view_and_say_when_they_are_simulated(visit: Visit) -> None:
    page = visit.page
    cell(page, 1, 1).click()
    assert "label: legit human\n" in page.locator("dialog p").inner_text()
    page.keyboard.press("ArrowDown")
    assert "label: malformed human, pattern (simulated)" in page.locator("dialog p").inner_text()


def test_the_page_holds_every_image_where_they_fit_and_says_so(visit: Visit, inputs: Inputs) -> None:
    assert "All 18 images of the 3 arms are here" in visit.page.locator("#gallery").inner_text()
    shown = inputs.gallery()
    assert (shown.held, shown.total, shown.pairs) == (18, 18, PAIRS)
    lines = "\n".join(shown.blocks).split("\n")
    assert all(PillowImage.open(io.BytesIO(base64.b64decode(line))).size == (64, 64) for line in lines)
    assert shown.content["seeds"] == [100 + k for k in range(PAIRS)]


def test_what_does_not_fit_is_left_out_and_what_the_views_need_is_kept(inputs: Inputs) -> None:
    size = len("".join(inputs.gallery().blocks)) / 18
    shown = inputs.gallery(int(9.5 * size))
    assert shown.selection.whole == [0], "half of the room goes to the first pairs"
    assert 7 <= shown.held <= 9
    lines = "\n".join(shown.blocks).split("\n")
    assert len(lines) == len(ARMS) * len(shown.content["pairs"])
    assert [bool(line) for line in lines[3:]] == [
        column in columns for columns in shown.content["parts"] for column in range(len(ARMS))
    ]
    assert json.dumps(shown.content, allow_nan=False), "no number that JSON cannot hold"


def test_rankings_are_complete_down_to_the_same_place_and_bring_the_baseline() -> None:
    rankings = {"base": [[9, 8, 7]], "a": [[7, 8, 9], [5, 6, 7]]}
    chosen = select(range(10), ["base", "a"], "base", rankings, 11)
    assert chosen.whole == [0, 1]
    assert chosen.depth == 1, "there is room for a second place of two rankings, not of the third"
    assert chosen.parts == {5: ["base", "a"], 7: ["base", "a"], 8: ["base", "a"], 9: ["base"]}
    assert chosen.images(2) == 11
    assert select(range(3), ["base", "a"], "base", rankings, 6).depth is None, "all of them fit"


def test_thumbnails_are_no_larger_than_their_place_and_never_enlarged() -> None:
    def size(width: int, height: int) -> tuple[int, int]:
        encoded = thumbnail(PillowImage.new("RGB", (width, height), "red"))
        return PillowImage.open(io.BytesIO(base64.b64decode(encoded))).size

    assert size(1024, 512) == (LONGEST_SIDE, LONGEST_SIDE // 2)
    assert size(64, 32) == (64, 32)


def test_repeats_do_not_count_towards_the_majority() -> None:
    def task(name: str, repeat_of: str | None = None) -> SampledTask:
        content = {"task_id": name, "image_id": "cfg-0", "arm": "cfg", "pair_id": 0, "canvas": "64x64", "stratum": ""}
        return SampledTask.model_validate(
            {**content, "inclusion_probability": 1, "batch": "random", "repeat_of": repeat_of, "position": 0}
        )

    def label(task_id: str, who: str, verdict: str) -> Label:
        when = "2026-11-21T12:00:00Z"
        content = {"task_id": task_id, "labeller": who, "verdict": verdict, "created_at": when, "simulated": False}
        return Label.model_validate(content)

    given = [label("t", "p1", "pattern"), label("t", "p2", "legit_human"), label("again", "p1", "pattern")]
    said = image_labels([task("t"), task("again", "t")], [*given, label("gone", "p1", "pattern")])["cfg-0"]
    assert said.majority is None
    assert said.verdicts == ["pattern", "legit_human", "pattern"]


def test_thumbnails_of_a_shard_of_more_than_two_gibibytes_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    PillowImage.new("RGB", (64, 64), (10, 200, 30)).save(buffer, "png")
    # One image of 64 MiB, of which the shard has 40.
    cell = pa.array(
        [{"bytes": buffer.getvalue().ljust(2**26, b"\0"), "path": None}],
        pa.struct({"bytes": pa.binary(), "path": pa.string()}),
    )
    shard = pa.table({"pair_id": range(40), "image": pa.chunked_array([cell] * 40)})
    monkeypatch.setattr(gallery, "read_table", lambda path, columns: shard.select(columns))
    monkeypatch.setattr(gallery, "shard_paths", lambda folder: [folder / "part-00000.parquet"])
    found = gallery._images(Path("set"), [3, 39])
    assert list(found) == [3, 39]
    assert gallery._images(Path("set"), [40]) == {}
