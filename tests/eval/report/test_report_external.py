"""Arms that someone else generated: where their images come from, and nothing that only pairs can say."""

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser
from report_browser import Visit
from report_numbers import ARMS, comparison, interval
from report_study import HOSTILE, PAIRS, Inputs, study

from eval.report.page import report
from pipeline.external.external_set import EXTERNAL_FEATURES
from pipeline.storage.shards import read_table, shard_paths, write_shard
from pipeline.study.study import Study, parse_study

MADE_ELSEWHERE = ARMS[:2]


def folders_beside_an_arm() -> Study:
    content = study().model_dump(mode="json", by_alias=True)
    folders = {arm: {"from_folder": f"images/{arm}"} for arm in MADE_ELSEWHERE}
    return parse_study({**content, "arms": {**content["arms"], **folders}}, "the test's study")


def external(paired_by: str) -> dict[str, Any]:
    return {
        "folder": "images/forge",
        "paired_by": paired_by,
        "canvas": "64x64",
        "sizes": {"512x768": 4, "1024x1024": 2},
        "done": {"shrunk": 6, "laid on white": 1},
        "tools": {"A1111": 5},
        "prompts": 5,
        "seeds": 4,
        "settings": {"model": {HOSTILE: 5}, "scale": {"7": 5}},
        "faults": 8,
        "unread": [{"file": f"{HOSTILE}.png", "fault": "its ComfyUI graph is not whole JSON"}],
        "scores": {HOSTILE: {"mean": interval(0.5, 0.4, 0.6), "difference": None}},
    }


def visited(inputs: Inputs, browser: Browser, paired_by: str) -> Visit:
    content = comparison()
    content["external"] = {arm: external(paired_by) for arm in MADE_ELSEWHERE}
    for arm in content["arms"]:
        if arm["arm"] in MADE_ELSEWHERE:
            arm |= {"method": "external", "scale": 1.0}
    inputs.comparison.write_text(json.dumps(content))
    for arm in MADE_ELSEWHERE:
        for path in shard_paths(inputs.sets / arm):
            columns = read_table(path).to_pydict()
            more = {
                "file": ["one.png"] * len(columns["pair_id"]),
                "metadata": [json.dumps({"tool": "A1111", "prompt": HOSTILE, "seed": 7})] * len(columns["pair_id"]),
                "fault": [""] * len(columns["pair_id"]),
                "size": ["512x768"] * len(columns["pair_id"]),
                "done": ['["shrunk"]'] * len(columns["pair_id"]),
                "scores": ["{}"] * len(columns["pair_id"]),
                "paired_by": [paired_by] * len(columns["pair_id"]),
            }
            seeds = [None if paired_by == "none" else seed for seed in columns["seed"]]
            write_shard(Path(path), {**columns, **more, "seed": seeds}, EXTERNAL_FEATURES, "mark")
    page_file = inputs.root / "index.html"
    page_file.write_text(report(folders_beside_an_arm(), inputs.root), "utf-8")
    visit = Visit(browser, page_file)
    visit.unfold()
    return visit


@pytest.mark.parametrize(
    ("paired_by", "word", "said"),
    [
        ("none", "row", "images stand beside each other by chance"),
        ("name", "pair", "Images of the same name are pairs."),
        ("seed", "seed", "Images of the same seed are pairs."),
    ],
)
def test_a_row_is_called_by_what_its_images_share(
    own_inputs: Inputs, browser: Browser, paired_by: str, word: str, said: str
) -> None:
    visit = visited(own_inputs, browser, paired_by)
    page = visit.page
    section = page.locator("#external-arms").inner_text()
    assert said in section
    assert "images have a prompt, 4 a seed" in section
    first = page.locator("#gallery-table tbody th b").first.inner_text()
    assert first == ("seed 100" if word == "seed" else f"{word} 0")
    assert page.locator("#gallery-table thead th").first.inner_text() == f"{word.capitalize()} and prompt"
    assert (page.locator("#gallery-filters [value=moved]").count() == 1) == (word != "row")
    if word == "row":
        assert "seed" not in page.locator("#answer").inner_text()
        assert "seed" not in page.locator("#gallery").inner_text().lower()
    assert ("two independent sets" in page.locator("#how-sure").inner_text()) == (word == "row")
    page.close()
    assert visit.messages == []


def test_what_files_say_is_shown_and_never_run(own_inputs: Inputs, browser: Browser) -> None:
    visit = visited(own_inputs, browser, "none")
    page = visit.page
    section = page.locator("#external-arms").first
    assert section.locator("script, img").count() == 0
    assert f"{HOSTILE} (5)" in section.inner_text()
    assert f"{HOSTILE}.png: its ComfyUI graph is not whole JSON" in section.inner_text()
    assert "and 7 more" in section.inner_text()
    page.locator("#gallery-table tbody img").first.click()
    parameters = page.locator("#image pre").text_content() or ""
    assert "tool: A1111" in parameters
    assert "<script>alert(1)</script>" in parameters
    assert "method:" not in parameters
    page.close()
    assert visit.messages == []
    assert PAIRS == 6
