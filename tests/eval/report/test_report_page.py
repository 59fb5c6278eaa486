"""The report is one safe, self-contained page that a person can read on a screen and on paper."""

import json
import subprocess
from pathlib import Path

import pytest
from playwright.sync_api import Browser
from report_browser import Visit, show_plot
from report_numbers import ARMS
from report_study import PAIRS, Inputs

from eval.report.provenance import commit


def test_tables_and_gallery_have_a_row_and_a_column_for_everything(visit: Visit) -> None:
    page = visit.page
    assert page.locator("#arms-table tbody tr").count() == len(ARMS)
    assert page.locator("#arms-table thead th").count() == 4 + 9
    assert page.locator("#arms-table tbody tr").first.locator("th, td").count() == 4 + 9
    further = page.locator("#further-table thead th").all_inner_texts()
    assert [text.split()[0] for text in further[4:]] == ["KID", "pyramid:"]
    assert page.locator("#shift-table tbody tr").count() == len(ARMS) - 1
    assert page.locator("#shift-table thead th").count() == 4 + 9
    assert page.locator("#gallery-table thead th").all_inner_texts() == ["Seed and prompt", *ARMS]
    assert page.locator("#gallery-table tbody tr:not(.spacer)").count() == PAIRS
    assert page.locator("#gallery-table tbody img").count() == PAIRS * len(ARMS)
    assert page.locator("#matrix-table tbody tr").count() == len(ARMS) - 1


def test_verdicts_frontiers_alignment_and_composition_are_on_the_page(visit: Visit) -> None:
    page = visit.page
    ids = "sections => sections.map(section => section.id)"
    anchors = page.locator("main > section").evaluate_all(ids)
    assert anchors == ["gallery", "trade-off", "direction", "labels", "numbers"]
    folded = page.locator("#numbers > details > section").evaluate_all(ids)
    assert {"how-sure", "method", "arms", "cost", "distribution-shift", "composition"} < set(folded)
    assert "p 0.1 <b>" in (page.locator("#matrix-table td").first.get_attribute("title") or "")
    assert "The answer <i>in words</i>." in page.locator("#alignment").inner_text()
    for plot, lines in {
        "frontier-precision": 2,
        "frontier-fd": 2,
        "frontier-quality": 2,
        "alignment": 3,
        "action": 3,
    }.items():
        show_plot(page, plot)
        assert page.locator(f"#plot-{plot} .legendtext").count() == lines
    rows = page.locator("#matched-table tbody tr")
    assert rows.count() == 4
    assert "out of range" in rows.last.inner_text()
    assert page.locator("#composition-table tbody tr").count() == len(ARMS)
    assert "too few prompts repeat" in page.locator("#shift-detail-table").inner_text()


def test_a_study_without_prompts_has_no_clip_score_on_its_page(browser: Browser, own_inputs: Inputs) -> None:
    content = json.loads(own_inputs.comparison.read_text()) | {"prompted": False}
    own_inputs.comparison.write_text(json.dumps(content))
    path = own_inputs.root / "index.html"
    path.write_text(own_inputs.report(), "utf-8")
    visit = Visit(browser, path)
    for table in ("arms", "shift", "matched"):
        assert "CLIP" not in visit.page.locator(f"#{table}-table thead").inner_text()
    assert visit.page.locator("#plot-frontier-fd").count() == 0
    show_plot(visit.page, "frontier-quality")
    visit.page.close()
    assert visit.messages == []


@pytest.mark.parametrize("width", [360, 1360])
def test_page_itself_never_scrolls_sideways(visit: Visit, width: int) -> None:
    visit.page.set_viewport_size({"width": width, "height": 800})
    visit.page.wait_for_function("() => document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_dark_theme_has_light_text_in_page_and_plots(browser: Browser, page_file: Path) -> None:
    visit = Visit(browser, page_file, "dark")
    try:
        show_plot(visit.page, "shift")
        for place in ("body", "#plot-shift .xtick text"):
            locator = visit.page.locator(place).first
            colour = locator.evaluate(
                "e => { const s = getComputedStyle(e); return e.tagName == 'text' ? s.fill : s.color }"
            )
            channels = [int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
            assert min(channels) > 150, f"{place} is {colour}"
    finally:
        visit.page.close()
    assert visit.messages == []


def test_page_is_below_10_megabytes_and_repeats_to_the_byte(inputs: Inputs, page_file: Path) -> None:
    assert page_file.stat().st_size < 10_000_000
    assert inputs.report() == page_file.read_text("utf-8")


def test_tags_learned_scores_and_lpips_are_on_the_page(visit: Visit) -> None:
    page = visit.page
    row = page.locator("#tags-table tbody tr").first.inner_text()
    assert "<b>blue</b> hair 5.0 %, was 2.0 %: +3.0 points (+1.0 to +5.0)" in row
    headers = page.locator("#shift-table thead th").all_inner_texts()
    assert {"Δ PickScore", "Δ LPIPS within prompt"} <= set(headers)
    assert "PickScore" in page.locator("#arms-table thead").inner_text()
    assert "scorers=[pickscore,lpips]" not in page.locator("#arms").inner_text()


def test_without_tags_and_learned_scores_the_page_says_what_to_run(own_inputs: Inputs) -> None:
    content = json.loads(own_inputs.comparison.read_text())
    for arm in content["arms"]:
        arm["scores"].pop("pickscore")
        if arm["against_baseline"]:
            arm["against_baseline"] |= {"tags": None, "lpips": None, "preferences": {}}
    own_inputs.comparison.write_text(json.dumps(content))
    page = own_inputs.report()
    assert "scorers=[pickscore,lpips]" in page
    assert "No tags can be read" in page
    assert "LPIPS within prompt" not in page


def test_the_footer_names_weights_seeds_versions_and_parameters(visit: Visit) -> None:
    footer = visit.page.locator("footer")
    text = footer.inner_text()
    assert "2000, seeds 100 to 109" in text
    assert "Scored with\naesthetic head head<1>, " in text
    assert "pickscore pick1" in text
    assert "torch 2.14.1" in text
    footer.locator("summary").click()
    assert "scheduler: ddim" in footer.locator("pre").inner_text()


def test_the_commit_is_that_of_the_repository_or_none(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(
            ["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    assert commit(tmp_path) == ""
    (tmp_path / "file").write_text("1")
    for arguments in (["init", "-q"], ["add", "file"], ["commit", "-qm", "1"]):
        git(*arguments)
    head = git("rev-parse", "HEAD")[:12]
    assert commit(tmp_path) == head
    (tmp_path / "file").write_text("2")
    assert commit(tmp_path) == f"{head}, with changes that are not committed"


def test_printed_the_gallery_is_a_table_of_its_first_rows_without_controls(visit: Visit) -> None:
    page = visit.page
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert not page.locator("#gallery-filters").is_visible()
    scroll = page.locator("#gallery-scroll")
    assert scroll.evaluate("e => e.scrollHeight <= e.clientHeight + 1"), "nothing of it is cut"
