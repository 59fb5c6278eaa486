"""What MLflow's runs are called."""

from small_study import comparison

from pipeline.results.comparison import Comparison
from pipeline.tracking.names import arm_names, state_name


def test_an_arm_is_called_by_its_method_and_scale() -> None:
    assert arm_names(Comparison(**comparison())) == {"unguided": "unguided", "cfg": "cfg x3", "negative": "negative x3"}


def test_arms_of_one_method_and_scale_keep_their_names() -> None:
    content = comparison()
    for arm, name in zip(content["arms"][1:], ("heavy", "light"), strict=True):
        arm |= {"arm": name, "family": "negative", "method": "negative", "scale": 2.0}
    names = arm_names(Comparison(**content))
    assert names == {"unguided": "unguided", "heavy": "heavy x2", "light": "light x2"}


def test_an_arm_that_is_lower_than_another_is_called_like_it() -> None:
    content = comparison()
    content["arms"][2] |= {"arm": "pure_negative_low", "family": "pure_negative", "method": "negative", "scale": 1.5}
    assert arm_names(Comparison(**content))["pure_negative_low"] == "pure_negative x1.5"


def test_a_control_is_called_by_the_arm_that_it_stands_beside() -> None:
    content = comparison()
    content["arms"][1] |= {"arm": "negative@cfg", "scale": 2.71828}
    assert arm_names(Comparison(**content))["negative@cfg"] == "negative@cfg x2.72"


def test_a_state_names_what_changed_and_counts_the_rest() -> None:
    before = {f"arms.{arm}.{key}": "1" for arm in ("cfg", "old") for key in ("scale", "method")}
    now = {key.replace("old", "new"): value for key, value in before.items()} | {"sampler.steps": "20"}
    assert state_name("s", now, {}, (before, {})) == "with new, without old, sampler.steps none -> 20 (s)"
    assert state_name("s", now, {}, None) == "first state (s)"
    many = {f"metrics.a_long_name_of_a_setting_{k}": "1" for k in range(9)}
    name = state_name("s", many, {}, ({}, {}))
    assert name == ("metrics.a_long_name_of_a_setting_0 none -> 1 and 8 more (s)")
    prompt = {"arms.cfg.negative_prompt": "worst quality, " * 9}
    assert len(state_name("s", prompt, {}, ({"arms.cfg.negative_prompt": ""}, {}))) <= 100
