"""The report says how much of each arm's shift is what negative prompts name, beside what goes of any other shift."""

import json
from typing import Any

import pytest
from compositions import composed
from report_browser import Visit
from report_numbers import comparison
from report_study import Inputs, study

from eval.features.plain_text import names_by_arm
from eval.report.named_concepts import concept_rows, concept_sentences
from pipeline.results.comparison import Comparison
from pipeline.study.study import parse_study

NAMES = {"cfg_3": set[str](), "negative_long": {"lowres", "<b>bold</b>"}}


def sentences(content: dict[str, Any], names: dict[str, set[str]]) -> dict[str, dict[str, Any]]:
    return {one["arm"]: one for one in concept_sentences(Comparison(**content), names)}


def test_a_share_counts_as_more_only_where_its_interval_lies_above_that_of_any_other_shift() -> None:
    rows = {row["concept"]: row for row in concept_rows(Comparison(**comparison()))}
    assert list(rows) == ["lowres", "<b>bold</b>", "all of them"]
    assert rows["lowres"]["control"] == "16 %"
    cfg, negative = rows["lowres"]["cells"]
    assert (cfg.text, cfg.span, cfg.more) == ("17 %", "14\N{EN DASH}20", False)
    assert (negative.text, negative.span, negative.more) == ("73 %", "70\N{EN DASH}76", True)
    assert [cell.more for cell in rows["<b>bold</b>"]["cells"]] == [False, True]


def test_a_sentence_tells_the_named_concept_that_exceeds_its_control_most() -> None:
    found = sentences(comparison(), NAMES)
    assert found["negative_long"] == {
        "arm": "negative_long",
        "concept": "lowres",
        "share": "73 %",
        "span": "70\N{EN DASH}76",
        "control": "16 %",
        "though": "",
    }
    assert found["cfg_3"]["concept"] is None, "though all of them together exceed theirs"


@pytest.mark.parametrize(
    ("names", "concept", "though"),
    [
        ({"<b>bold</b>"}, "<b>bold</b>", ""),
        ({"watermark"}, "lowres", "does not name it"),
        (set[str](), "lowres", "names nothing"),
    ],
)
def test_an_arm_is_told_by_what_it_names_itself_where_it_names_any(names: set[str], concept: str, though: str) -> None:
    found = sentences(comparison(), {"negative_long": names})
    assert list(found) == ["negative_long"], "an arm of unknown names has no sentence"
    assert (found["negative_long"]["concept"], found["negative_long"]["though"]) == (concept, though)


def test_names_are_the_tags_of_the_negative_prompt_that_changes_images() -> None:
    assert names_by_arm(study()) == {"unguided": set(), "cfg_3": set(), "negative_long": {"lowres"}}
    arms = {
        "unguided": {"method": "unguided", "scale": 1, "negative_prompt": "blurry", "probes": ["negative"]},
        "own": {"method": "negative", "scale": 3, "negative_from_prompt": True},
        "weighted": {"method": "negative", "scale": 3, "negative_prompt": "(blurry:1.2), worst quality,"},
    }
    own = parse_study({**composed(), "arms": arms}, "the test's study")
    assert names_by_arm(own) == {"unguided": set(), "weighted": {"blurry", "worst quality"}}


def test_the_page_shows_shares_sentences_and_names_that_no_image_shows(visit: Visit) -> None:
    section = visit.page.locator("#named-concepts")
    assert section.locator("tbody tr").count() == 3
    row = section.locator("tbody tr").first.inner_text()
    assert "16 %" in row
    assert "70\N{EN DASH}76" in row
    assert section.locator("td.decided").count() == 4
    said = section.locator("li").all_inner_texts()
    assert said == [
        "No concept takes more of the shift of cfg_3 than of any other shift.",
        "Without lowres, 73 % (70\N{EN DASH}76) of the shift of negative_long is gone. "
        "Of a shift that has nothing to do with lowres, about 16 % would be.",
    ]
    assert section.locator("tbody th").nth(1).inner_text().startswith("<b>bold</b>"), "text, not markup"
    assert "<i>moiré</i>" in section.locator(".note").last.inner_text()


def test_without_named_concepts_the_page_has_no_section_on_them(own_inputs: Inputs) -> None:
    content = json.loads(own_inputs.comparison.read_text()) | {"named": None}
    assert concept_rows(Comparison(**content)) == concept_sentences(Comparison(**content), NAMES) == []
    own_inputs.comparison.write_text(json.dumps(content))
    assert 'id="named-concepts"' not in own_inputs.report()
