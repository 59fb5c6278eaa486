"""Control arms: written out when a study is composed, and plain CFG at the scale that was measured."""

import numpy as np
import pytest
import torch
from compositions import composed
from PIL import ImageEnhance

from pipeline.errors import InputError
from pipeline.generate import generate
from pipeline.generation.control_scales import effective_scales, resolved
from pipeline.guidance.scale_schedules import Moment, Steps
from pipeline.layout import SETS, TRACES
from pipeline.storage.places import Places
from pipeline.storage.shards import decode_images, read_set
from pipeline.study.controls import with_controls
from pipeline.study.scales import with_scales
from pipeline.study.study import parse_study


def with_kind(params, kind, **arms):
    params["arms"] = {"unguided": params["arms"]["unguided"], **arms}
    return parse_study(with_controls({**params, "controls": kind}), "test")


NEGATIVE = {"method": "negative", "scale": 3.0, "negative_prompt": "worst quality"}


def test_every_guided_arm_gets_a_control_and_records_the_empty_text():
    content = with_controls({**composed(), "controls": "constant"})
    study = parse_study(content, "test")
    followed = {arm.control.of for arm in study.arms.values() if arm.control}
    assert followed == {"negative", "autoguidance", "negative_low", "autoguidance_low"}
    assert study.arms["negative"].probes == ("empty",)
    assert study.arms["negative@cfg"].method == "cfg"
    assert list(study.arms).index("negative@cfg") == list(study.arms).index("negative") + 1
    assert with_controls(content) == content  # composed again, it is the same


def test_a_control_shares_what_decides_an_image_beside_guidance(params):
    own = {**NEGATIVE, "quality_preset": "tinybooru", "canvas": {"width": 32, "height": 64}}
    study = with_kind(params, "constant", negative=own)
    control = study.arms["negative@cfg"]
    assert (control.quality_preset, control.canvas) == ("tinybooru", study.arms["negative"].canvas)


@pytest.mark.parametrize("kind", ["constant", "schedule"])
def test_a_control_is_cfg_at_the_measured_scale(params, tmp_path, kind):
    study, places = with_kind(params, kind, negative=NEGATIVE), Places.under(tmp_path)
    done = generate(study, ["negative@cfg", "negative"], places)
    assert list(done) == ["negative@cfg", "negative"]
    wanted = effective_scales(read_set(tmp_path / TRACES / "negative"))
    found = effective_scales(read_set(tmp_path / TRACES / "negative@cfg"))
    by_step = wanted.mean(0)
    if kind == "constant":
        np.testing.assert_allclose(found, by_step.mean(), rtol=1e-3)
    else:
        np.testing.assert_allclose(found, np.broadcast_to(by_step, found.shape), rtol=1e-3)
    arm = resolved(study, ["negative@cfg"], places).arms["negative@cfg"]
    assert arm.scale == pytest.approx(by_step.mean())
    # The same seeds and prompts, and its own images.
    sets = [read_set(tmp_path / SETS / name) for name in ("negative", "negative@cfg")]
    for column in ("seed", "prompt", "pair_id"):
        assert sets[0][column] == sets[1][column]
    assert any(a.tobytes() != b.tobytes() for a, b in zip(*map(decode_images, sets), strict=True))


def test_the_control_of_cfg_by_another_name_is_cfg(params, tmp_path):
    """A mix of the empty text alone is CFG: its control has its images, to the rounding of the measured scale."""
    mix = {"method": "mix", "scale": 2.0, "terms": [{"reference": "empty"}]}
    generate(study := with_kind(params, "constant", mix=mix), list(study.arms), Places.under(tmp_path))
    ours, theirs = (list(decode_images(read_set(tmp_path / SETS / name))) for name in ("mix", "mix@cfg"))
    for a, b in zip(ours, theirs, strict=True):
        assert np.abs(np.asarray(a, int) - np.asarray(b, int)).max() <= 1


def test_a_control_spends_as_many_evaluations_as_its_arm(params, tmp_path):
    terms = [{"reference": "negative"}, {"reference": "guide"}, {"reference": "pag"}]
    mix = {"method": "mix", "scale": 1.5, "terms": terms, "negative_prompt": "worst quality"}
    study, places = with_kind(params, "constant", mix=mix), Places.under(tmp_path)
    generate(study, ["mix"], places)
    steps = study.sampler.steps
    assert resolved(study, ["mix@cfg"], places).arms["mix@cfg"].sampler.steps == 2 * steps  # four a step against two


def test_a_changed_arm_changes_its_control(params, tmp_path):
    places = Places.under(tmp_path)
    arms = ["negative", "negative@cfg"]
    generate(with_kind(params, "constant", negative=NEGATIVE), arms, places)
    again = generate(with_kind(params, "constant", negative=NEGATIVE), arms, places)
    assert [one.generated for one in again.values()] == [0, 0]
    other = generate(with_kind(params, "constant", negative={**NEGATIVE, "scale": 5.0}), arms, places)
    assert all(one.generated == one.shards for one in other.values())


def test_without_the_arm_it_follows_a_control_says_what_to_generate(params, tmp_path):
    study = with_kind(params, "constant", negative=NEGATIVE)
    with pytest.raises(InputError, match=r"arms\.negative@cfg follows arm 'negative', whose trace cannot be read"):
        generate(study, ["negative@cfg"], Places.under(tmp_path))


@pytest.mark.parametrize(
    ("name", "control", "said"),
    [
        ("own@cfg", {"of": "none"}, r"arms.own@cfg.control.of must be 'own', one of the arms"),
        ("own", {"of": "cfg"}, r"arms.own: an arm is called <arm>@cfg if it has a control, and only then"),
        ("cfg@cfg", None, r"arms.cfg@cfg: an arm is called <arm>@cfg if it has a control"),
        ("unguided@cfg", {"of": "unguided"}, r"must have 'empty' among its probes"),
    ],
)
def test_a_control_that_cannot_be_is_refused(params, name, control, said):
    params["arms"]["unguided"]["probes"] = []
    params["arms"][name] = {"method": "cfg", "scale": 1.0, **({"control": control} if control else {})}
    with pytest.raises(InputError, match=said):
        parse_study(params, "test")


def test_a_scale_for_each_step_is_taken_up_by_more_steps():
    schedule = Steps(name="steps", factors=(0.0, 0.5, 1.0))
    assert [schedule.factor(Moment(k, 3, 0, 1, 0)) for k in range(3)] == [0.0, 0.5, 1.0]
    assert [schedule.factor(Moment(k, 6, 0, 1, 0)) for k in range(6)] == [0.0, 0.0, 0.5, 0.5, 1.0, 1.0]
    assert torch.tensor(schedule.factors).shape == (3,)


def test_more_scales_of_an_arm_become_arms_of_its_family_and_have_controls_of_their_own():
    content = {**composed(), "scales": {"negative": [1.25, 1.5, 2]}, "controls": "constant"}
    content["arms"] = {name: content["arms"][name] for name in ("unguided", "negative")}
    study = parse_study(with_controls(with_scales(content)), "test")
    assert [*study.arms][1::2] == ["negative", "negative_1_25", "negative_2"]
    assert [study.arms[name].scale for name in [*study.arms][1::2]] == [1.5, 1.25, 2.0]
    assert {arm.family for arm in study.arms.values()} == {"unguided", "negative", "control"}
    assert study.arms["negative_2@cfg"].control.of == "negative_2"
    assert with_scales(content) == with_scales(with_scales(content))


def test_scales_of_an_unknown_arm_are_refused(params):
    params["scales"] = {"none": [2.0]}
    with pytest.raises(InputError, match=r"scales\.none is not one of the arms"):
        parse_study(params, "test")


def test_a_retouched_arm_is_its_control_with_more_colour(params, tmp_path):
    own = {"method": "cfg", "scale": 2.0, "retouch": {"saturation": 1.4, "contrast": 1.2}}
    generate(study := with_kind(params, "constant", retouched=own), list(study.arms), Places.under(tmp_path))
    ours, theirs = (list(decode_images(read_set(tmp_path / SETS / f"retouched{end}"))) for end in ("", "@cfg"))
    for image, plain in zip(ours, theirs, strict=True):
        wanted = ImageEnhance.Contrast(ImageEnhance.Color(plain).enhance(1.4)).enhance(1.2)
        # The control's scale is measured, so that a value may be rounded the other way.
        assert np.abs(np.asarray(image, int) - np.asarray(wanted, int)).max() <= 3
        assert np.abs(np.asarray(image, int) - np.asarray(plain, int)).max() > 3
