"""Edits of prompts: the same request in other words, image by image."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from pipeline.errors import InputError
from pipeline.generation.arm_texts import arm_prompts, study_prompts, unrelated_prompts
from pipeline.generation.shard_plan import arm_texts, plan_arm
from pipeline.prompting.edits import PromptEdit, edited, tags_of
from pipeline.prompting.emphasis import parse
from pipeline.study.arm import Arm
from pipeline.study.study import parse_study

PROMPT = "1person, solo, red hair, smile"
EDIT = TypeAdapter(PromptEdit)


def after(prompt, *edits, syntax="a1111"):
    return edited([prompt], [EDIT.validate_python(edit) for edit in edits], syntax)[0]


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        ({"name": "prefix", "text": "a photo"}, "a photo, 1person, solo, red hair, smile"),
        ({"name": "suffix", "text": "hat"}, "1person, solo, red hair, smile, hat"),
        ({"name": "reverse"}, "smile, red hair, solo, 1person"),
        ({"name": "rotate", "by": 1}, "solo, red hair, smile, 1person"),
        ({"name": "rotate", "by": -1}, "smile, 1person, solo, red hair"),
        ({"name": "rotate", "by": 4}, PROMPT),
        ({"name": "first", "tag": "* hair"}, "red hair, 1person, solo, smile"),
        ({"name": "drop", "tag": "solo"}, "1person, red hair, smile"),
        ({"name": "drop", "tag": "*"}, ""),
        ({"name": "drop_commas"}, "1person solo red hair smile"),
        ({"name": "weigh", "tag": "* hair", "weight": 1.3}, "1person, solo, (red hair:1.3), smile"),
        ({"name": "weigh", "tag": "* hair", "part": "red", "weight": 0.5}, "1person, solo, (red:0.5) hair, smile"),
        ({"name": "weigh", "tag": "* hair", "part": "blue", "weight": 2.0}, PROMPT),
        ({"name": "replace", "tag": "red hair", "text": "blue hair"}, "1person, solo, blue hair, smile"),
        ({"name": "contradict", "tag": "* hair", "text": "blue hair"}, "1person, solo, red hair, blue hair, smile"),
        ({"name": "contradict", "tag": "* hair", "text": "red hair"}, PROMPT),
    ],
)
def test_an_edit_says_the_prompt_in_other_words(edit, expected):
    assert after(PROMPT, edit) == expected


def test_edits_act_in_the_order_written():
    suffix, reverse = {"name": "suffix", "text": "hat"}, {"name": "reverse"}
    assert after(PROMPT, suffix, reverse).startswith("hat, ")
    assert after(PROMPT, reverse, suffix).endswith(", hat")


def test_without_edits_a_prompt_stays_as_it_is_to_the_character():
    odd = " 1person,,solo ,red hair\n"
    assert edited([odd], [], "a1111") == [odd]


def test_weights_are_written_in_the_studys_syntax():
    more, less = ({"name": "weigh", "tag": "solo", "weight": weight} for weight in (1.1025, 1 / 1.05))
    assert after(PROMPT, more, syntax="novelai") == "1person, {{solo}}, red hair, smile"
    assert after(PROMPT, less, syntax="novelai") == "1person, [solo], red hair, smile"
    part = {"name": "weigh", "tag": "* hair", "part": "red", "weight": 1.05}
    (section,) = parse(after(PROMPT, part, syntax="novelai"), "novelai")
    assert [span.text for span in section if span.weight != 1] == ["red"]


def test_a_comma_inside_brackets_belongs_to_its_tag():
    assert tags_of("(red, blue:1.2), [a, b], c\\, d, e") == ["(red, blue:1.2)", "[a, b]", "c\\, d", "e"]
    assert after("(red, blue:1.2), c", {"name": "reverse"}) == "c, (red, blue:1.2)"


@given(st.lists(st.text("abc (){}[]\\,", max_size=12), max_size=6))
def test_any_text_has_tags_and_reversing_twice_gives_them_back(parts):
    prompt = ", ".join(parts)
    once = after(prompt, {"name": "reverse"})
    if sorted(tags_of(once)) == sorted(tags_of(prompt)):  # brackets left open join what follows
        assert tags_of(after(once, {"name": "reverse"})) == tags_of(prompt)


def test_an_edited_arm_generates_from_its_own_prompts_and_stays_paired(study, params):
    params["arms"]["reversed"] = {"method": "cfg", "scale": 2.0, "prompt_edits": [{"name": "reverse"}]}
    edited_study = parse_study(params, "test")
    plain = study_prompts(edited_study)
    own = arm_texts(edited_study, "reversed")["prompt"]
    assert [tags_of(text) for text in own] == [tags_of(text)[::-1] for text in plain]
    assert edited_study.arms["reversed"].shown_prompt == "reversed"
    arm = Arm(method="independent", scale=3, prompt_edits=[{"name": "reverse"}])
    assert unrelated_prompts(arm, ["a, b", "c, d"], "a1111") == ["d, c", "b, a"]


def test_an_edit_that_changes_no_text_changes_no_fingerprint(params):
    def plan(edits):
        params["arms"]["cfg"]["prompt_edits"] = edits
        study = parse_study(params, "test")
        return plan_arm(study, "cfg", arm_texts(study, "cfg"), "cpu")

    assert plan([{"name": "drop", "tag": "no such tag"}]) == plan([])
    assert plan([{"name": "reverse"}]) != plan([])


def test_a_paraphrase_is_read_from_a_second_column(params, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts").mkdir()
    table = {"tags": ["1girl, hat", "1boy"], "prose": ["A girl wears a hat.", "A boy."]}
    pq.write_table(pa.table(table), "prompts/both.parquet")
    params["prompts"] = {"source": "dataset", "path": "prompts/both.parquet", "column": "tags"}
    params["arms"]["cfg"]["prompt_column"] = "prose"
    study = parse_study(params, "test")
    texts = study_prompts(study, study.arms["cfg"].prompt_column)
    assert arm_prompts(study.arms["cfg"], texts, "a1111")[:2] == table["prose"]
    assert study_prompts(study)[:2] == table["tags"]
    assert study.arms["cfg"].shown_prompt == "column prose"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt_edits": [{"name": "shuffle"}]}, "prompt_edits.0"),
        ({"prompt_edits": [{"name": "suffix", "text": "(x:abc)"}]}, r"prompt_edits.0.text: '\(x:abc\)' has the weight"),
        ({"prompt_edits": [{"name": "weigh", "tag": "a", "weight": 5000}]}, "prompt_edits.0.weigh.weight is 5000"),
        ({"prompt_edits": [{"name": "reverse"}], "prompt": "empty"}, "prompt empty leaves nothing to edit"),
        ({"prompt_column": "prose"}, "prompts.source tinybooru has no columns; take prompts=dataset"),
    ],
)
def test_an_edit_that_cannot_be_is_refused_at_composition(params, changes, message):
    params["arms"]["cfg"] |= changes
    with pytest.raises(InputError, match=message):
        parse_study(params, "test")


def test_weights_are_refused_where_the_syntax_has_none(params):
    params["arms"]["cfg"]["prompt_edits"] = [{"name": "weigh", "tag": "smile", "weight": 1.2}]
    params["text"]["syntax"] = "plain"
    with pytest.raises(InputError, match=r"arms.cfg.prompt_edits.0 weighs words, and text.syntax plain has no"):
        parse_study(params, "test")
