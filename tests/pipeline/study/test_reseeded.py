"""The baseline from other seeds: filled in by the study, refused where it would be anything else, and no method."""

import pytest
from compositions import composed

from pipeline.errors import InputError
from pipeline.generation.arm_texts import study_prompts
from pipeline.study.reseeded import with_reseeded
from pipeline.study.study import parse_study


def study(**reseeded):
    return parse_study(composed_with(**reseeded), "study")


def composed_with(**reseeded):
    content = composed()
    content["arms"]["reseeded"] |= reseeded
    return content


def test_it_has_the_settings_of_the_baseline_without_its_probes():
    for baseline in ("unguided", "cfg", "negative", "pure_negative"):
        found = parse_study(composed(f"baseline={baseline}"), "study")
        own = found.arms["reseeded"]
        assert own.generates_with == found.arms[baseline].generates_with
        assert own.probes == ()
    assert composed()["arms"]["reseeded"]["description"] == "unguided once more, from other seeds"


def test_it_follows_what_is_overridden_of_the_baseline():
    arms = composed("+arms.unguided.canvas={width: 32, height: 32}")["arms"]
    assert arms["reseeded"]["canvas"] == {"width": 32, "height": 32}


def test_one_key_is_enough_in_a_study_that_has_none():
    content = composed("study=pure_negative", "arms.again.first_seed=7000")
    assert parse_study(content, "study").reseeded == "again"
    assert content["arms"]["again"]["method"] == content["arms"][content["baseline"]]["method"]


def test_what_an_arm_says_itself_is_not_filled_in():
    content = {"baseline": "a", "arms": {"a": {"method": "cfg"}, "b": {"method": "pag", "first_seed": 5}}}
    assert with_reseeded(content) == content


def test_its_images_share_prompts_and_no_pair_with_the_others():
    found = study()
    images = found.generate.images
    assert found.seeds_of("cfg") == range(images)
    assert found.seeds_of("reseeded") == range(1_000_000, 1_000_000 + images)
    assert not set(found.pairs_of("reseeded")) & set(found.pairs_of("cfg"))
    assert found.pairs_of("cfg") == found.pairs_of(found.baseline) == range(images)
    assert len(study_prompts(found)) == images


def test_it_is_generated_and_is_none_of_the_arms_that_are_compared():
    found = study()
    assert "reseeded" in found.arms
    assert list(found.compared) == [name for name in found.arms if name != "reseeded"]
    assert parse_study(composed("~arms.reseeded"), "study").reseeded is None


def test_no_control_follows_it_and_scales_leave_it_alone():
    arms = composed("+controls=constant", "baseline=negative")["arms"]
    assert "negative@cfg" in arms
    assert "reseeded@cfg" not in arms
    assert arms["reseeded"]["scale"] == arms["negative"]["scale"]


@pytest.mark.parametrize(
    ("reseeded", "said"),
    [
        (
            {"first_seed": 100},
            r"arms\.reseeded\.first_seed is 100: its 192 seeds overlap the study's, which are 0 to 191;",
        ),
        ({"first_seed": 0}, "write 192 or more"),
        ({"first_seed": -1}, "arms.reseeded.first_seed is -1: Input should be greater than or equal to 0"),
        ({"method": "cfg", "scale": 3.0}, "does not generate as the baseline 'unguided' does"),
        ({"prompt": "empty"}, "does not generate as the baseline 'unguided' does"),
        ({"sampler": {"scheduler": "ddim", "steps": 7}}, "leave first_seed out, or leave out everything else"),
    ],
)
def test_an_arm_of_other_seeds_that_is_not_the_baseline_is_refused(reseeded, said):
    with pytest.raises(InputError, match=said):
        study(**reseeded)


def test_probes_and_words_about_it_make_no_difference():
    assert study(probes=["empty"], description="mine", family="mine").reseeded == "reseeded"


def test_there_is_one_of_it_and_it_is_not_the_baseline():
    content = composed()
    content["arms"]["again"] = content["arms"]["reseeded"] | {"first_seed": 2_000_000}
    with pytest.raises(InputError, match="arms reseeded and again are both 'unguided' from other seeds; keep one"):
        parse_study(content, "study")
    content = composed()
    content["arms"]["unguided"]["first_seed"] = 5_000
    with pytest.raises(InputError, match=r"arms\.unguided\.first_seed is 5000; the baseline has the study's seeds"):
        parse_study(content, "study")


def test_no_arm_starts_from_images_of_other_seeds():
    content = composed()
    source = content["arms"]["reseeded"]
    content["arms"]["cfg"]["image_to_image"] = {"from": "reseeded", "source": source, "strength": 0.5}
    with pytest.raises(InputError, match=r"arms\.cfg\.image_to_image\.from 'reseeded' has other seeds; name another"):
        parse_study(content, "study")
