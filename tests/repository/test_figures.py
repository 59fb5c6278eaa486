"""Figures that people copied into pages are those of the files that commands write."""

import json

from repository_copy import ROOT

from docs.interrogator_figures import COMMAND, PAGE, block, load_kept
from docs.written_block import replaced
from eval.features.extractor import weights_digest
from pipeline.study.extractors import EXTRACTORS

TINYBOORU = ROOT / "models/tinybooru"


def test_the_decision_on_the_primary_space_says_what_the_spaces_answer() -> None:
    spaces = json.loads((TINYBOORU / "feature_spaces.json").read_text("utf-8"))["spaces"]
    rows = {
        "every image of normal quality": "all normal quality",
        "every image of worst quality": "all worst quality",
        "saturation x1.3": "saturation x1.3",
        "half the styles dropped": "half the styles",
        "malformed people for legit ones": "malformed people",
        "JPEG of quality 15": "JPEG 15",
    }
    page = (ROOT / "docs/decisions.md").read_text("utf-8")
    for said, change in rows.items():
        answers = [next(one["fd"] for one in space["responses"] if one["change"] == change) for space in spaces]
        cells = " | ".join(f"{answer:.0f}" if answer >= 9.95 else f"{answer:.1f}" for answer in answers)
        assert f"| {said} | {cells} |" in page


def test_the_interrogator_s_table_is_that_of_the_kept_figures_of_this_clip() -> None:
    kept, page = load_kept(ROOT), (ROOT / PAGE).read_text("utf-8")
    assert page == replaced(page, PAGE, COMMAND, block(kept))
    assert kept.clip == weights_digest(EXTRACTORS["open_clip"].paths(TINYBOORU / "clip"), "make train")
