"""An arm that does nothing is told of when it is generated, and one that acts is not."""

import pyarrow as pa
import pytest

from pipeline.generate import generate
from pipeline.guidance.effect import does_nothing, in_words, largest_push
from pipeline.storage.places import Places
from pipeline.study.arm import Arm
from pipeline.study.study import parse_study


def told(params, tmp_path, capsys, arm):
    params["arms"]["own"] = arm
    generate(parse_study(params, "test"), ["own"], Places.under(tmp_path))
    return capsys.readouterr().err


@pytest.mark.parametrize(
    "arm",
    [
        {"method": "negative", "scale": 3.0, "negative_from_prompt": True},
        {"method": "cfg", "scale": 3.0, "prompt": "empty"},
        {"method": "cfg", "scale": 3.0, "schedule": {"name": "interval", "lo": 1000, "hi": 2000}},
    ],
    ids=["the prompt as negative", "two empty prompts", "no step in the interval"],
)
def test_an_arm_whose_reference_is_the_prediction_is_said_to_do_nothing(params, tmp_path, capsys, arm):
    assert "warning: arm 'own' does nothing: its guidance changes x0 by " in told(params, tmp_path, capsys, arm)


@pytest.mark.parametrize(
    "arm",
    [
        {"method": "negative", "scale": 1.1, "negative_prompt": "worst quality"},
        {"method": "unguided", "scale": 1.0},
        {"method": "cfg", "scale": 1.0},  # scale 1 is no guidance, as it says
    ],
    ids=["a light negative", "unguided", "scale one"],
)
def test_an_arm_that_acts_or_is_not_meant_to_is_not_told_of(params, tmp_path, capsys, arm):
    assert "does nothing" not in told(params, tmp_path, capsys, arm)


def test_the_largest_push_is_a_mean_over_images_at_one_step():
    trace = pa.table(
        {
            "step": [0, 1, 0, 1],
            "direction": [0.1, 0.5, 0.3, 0.1],
            "references": [["empty"]] * 4,
            "relative_norms": [[9.0]] * 4,
        }
    )
    assert largest_push(trace) == pytest.approx(0.3)


def test_a_main_prediction_that_is_steered_is_held_against_the_plain_one():
    trace = pa.table(
        {
            "step": [0, 1],
            "direction": [0.0, 0.0],
            "references": [["main", "empty"], ["empty", "main"]],
            "relative_norms": [[0.1, 9.0], [9.0, 0.2]],
        }
    )
    assert largest_push(trace) == pytest.approx(0.2)


def test_half_precision_rounds_more():
    assert [does_nothing(True, 5e-4, dtype) for dtype in ("float32", "float16", "bfloat16")] == [False, True, True]
    assert does_nothing(True, float("nan"), "float32")
    assert not does_nothing(False, 0.0, "float32")


def test_what_is_meant_to_guide():
    nag = {"name": "nag", "text": "negative", "scale": 3}
    steered = {"method": "unguided", "scale": 1, "negative_prompt": "x", "attention": nag}
    meant = [
        Arm.model_validate(own).is_meant_to_guide
        for own in (
            {"method": "unguided", "scale": 1},
            {"method": "cfg", "scale": 2},
            {"method": "mix", "scale": 1, "terms": [{"reference": "empty", "scale": 2}]},
            steered,
            {**steered, "probes": ["main"]},
        )
    ]
    assert meant == [False, True, True, False, True]


def test_what_is_told_names_the_references_and_how_near_they_are():
    trace = pa.table({"references": [["nag"], ["nag"]], "relative_norms": [[1e-8], [3e-8]]})
    assert "|main - reference| / |main| is nag 2.0e-08" in in_words("x", 1e-8, trace)
