"""The study's negative prompt: one value, written into every arm that reads one and sets none."""

import pytest
from compositions import composed
from hypothesis import given
from hypothesis import strategies as st
from repository_copy import ROOT

from pipeline.compose import compose
from pipeline.errors import InputError
from pipeline.study.negative import check_negative, reads_negative, with_negative
from pipeline.study.study import parse_study

HOSTILE = [
    "bad hands, blurry",
    "a: b = c",
    'it\'s "bad"',
    "(worst quality:1.4), [lowres], {x}",
    "${arms.cfg.scale} ${oc.env:HOME} \\${x} $(ls) `ls`",
    "back\\slash \\( \\",
    "低品质, плохое качество, かわいくない 🙅",
    "  spaces at both ends  ",
    "null",
    "- --flag #comment",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_negative_prompt_reaches_every_arm_that_reads_one_as_it_was_written(text):
    content = compose(ROOT / "conf", ["text.syntax=plain"], negative=text)
    assert content["negative"] == text
    study = parse_study(content, "study")
    taken = {name for name, arm in study.arms.items() if arm.negative_prompt == text}
    assert taken == {"unguided", "negative", "negative_low", "pure_negative", "pure_negative_low"}
    assert all(arm.negative_preset is None for arm in study.arms.values())
    assert study.negative is not None
    assert study.negative.shown == text


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20))
def test_any_text_survives(text):
    arms = {"a": {"method": "negative", "scale": 2}, "b": {"method": "cfg", "scale": 2}}
    assert with_negative({"negative": text, "arms": arms})["arms"] == {
        **arms,
        "a": {**arms["a"], "negative_prompt": text},
    }


def test_an_arm_keeps_its_own():
    own = {"method": "negative", "negative_preset": "tinybooru-light"}
    empty = {"method": "negative", "negative_prompt": ""}
    prompt = {"method": "negative", "negative_from_prompt": True}
    shared = {"method": "negative", "negative_preset": None}
    found = with_negative({"negative": "x", "arms": {"a": own, "b": empty, "c": prompt, "d": shared}})["arms"]
    assert found == {"a": own, "b": empty, "c": prompt, "d": {"method": "negative", "negative_prompt": "x"}}


@pytest.mark.parametrize(
    ("arm", "reads"),
    [
        ({"method": "negative"}, True),
        ({"method": "cfg"}, False),
        ({"method": "unguided", "probes": ["empty", "negative"]}, True),
        ({"method": "mix", "terms": [{"reference": "empty"}, {"reference": "negative"}]}, True),
        ({"method": "mix", "terms": [{"reference": "weak"}], "references": {"weak": {"text": "negative"}}}, True),
        ({"method": "unguided", "attention": {"name": "nag"}}, True),
        ({"method": "unguided", "attention": {"name": "nag", "text": "empty"}}, False),
        ({"method": "mix", "terms": None, "probes": None}, False),
    ],
)
def test_what_reads_a_negative_prompt(arm, reads):
    assert reads_negative(arm) is reads


def test_the_arm_that_another_starts_from_is_repeated_with_its_negative_prompt():
    start = {"method": "negative", "scale": 2}
    other = {"method": "cfg", "image_to_image": {"from": "a", "source": start}}
    found = with_negative({"negative": "x", "arms": {"a": start, "b": other}})["arms"]
    assert found["b"]["image_to_image"]["source"] == found["a"] == {**start, "negative_prompt": "x"}


def test_every_shared_arm_of_the_default_study_has_the_embedded_worlds_list():
    assert composed()["negative"] == {"preset": "tinybooru"}
    presets = {name: arm.get("negative_preset") for name, arm in composed()["arms"].items()}
    assert {name for name, preset in presets.items() if preset == "tinybooru"} == {
        "unguided", "negative", "negative_low", "pure_negative", "pure_negative_low"
    }  # fmt: skip


def test_a_negative_prompt_that_no_arm_takes_is_refused():
    with pytest.raises(InputError, match=r"study 'presets' has no arm that takes the study's negative prompt"):
        compose(ROOT / "conf", ["study=presets"], negative="bad")
    assert "negative" not in composed("study=presets")


def test_a_negative_prompt_that_params_alone_change_is_refused_before_anything_is_generated():
    study = parse_study({**composed(), "negative": "bad hands"}, "params.yaml")
    with pytest.raises(InputError, match=r"negative is 'bad hands', which no arm of params\.yaml has"):
        check_negative(study.negative, study.arms)
    check_negative(None, study.arms)
    unchanged = parse_study(composed(), "params.yaml")
    check_negative(unchanged.negative, unchanged.arms)


@pytest.mark.parametrize("negative", [{"text": "a", "preset": "tinybooru"}, {}, {"text": None}])
def test_a_negative_prompt_is_a_text_or_a_preset(negative):
    with pytest.raises(InputError, match="negative: needs exactly one of text and preset"):
        parse_study({**composed(), "negative": negative}, "study")


def test_every_guided_arm_stands_at_the_scales_that_are_asked_for():
    arms = compose(ROOT / "conf", [], scales=(1.5, 3.0))["arms"]
    assert {name: arm["scale"] for name, arm in arms.items()} == {
        "unguided": 1.0,
        "cfg": 3.0,
        "cfg_1_5": 1.5,
        "negative": 1.5,
        "negative_3": 3.0,
        "pure_negative": 1.5,
        "pure_negative_3": 3.0,
        "autoguidance": 1.5,
        "autoguidance_3": 3.0,
        "reseeded": 1.0,
    }
    controlled = compose(ROOT / "conf", ["+controls=constant"], scales=(2.0,))["arms"]
    assert "negative@cfg" in controlled
    assert "cfg_low" not in controlled
