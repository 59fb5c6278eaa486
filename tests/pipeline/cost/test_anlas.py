"""NovelAI's price of an image, against values computed by hand from its formulas."""

import pytest

from pipeline.cost.anlas import anlas
from pipeline.errors import InputError
from pipeline.generate import arm_anlas
from pipeline.generation.shard_plan import arm_texts, plan_arm
from pipeline.study.anlas import Anlas
from pipeline.study.arm import Arm
from pipeline.study.study import parse_study


@pytest.mark.parametrize(
    ("arguments", "price"),
    [
        # 2.986 + 16.298 = 19.28
        ({"width": 832, "height": 1216, "steps": 28}, 20),
        ({"width": 832, "height": 1216, "steps": 28, "smea": "smea"}, 24),
        ({"width": 832, "height": 1216, "steps": 28, "smea": "smea_dyn"}, 28),
        # 20 x 0.7 = 14
        ({"width": 832, "height": 1216, "steps": 28, "strength": 0.7}, 14),
        # 3.095 + 16.892 = 19.99
        ({"width": 1024, "height": 1024, "steps": 28}, 20),
        # 3.095 + 30.164 = 33.26
        ({"width": 1024, "height": 1024, "steps": 50}, 34),
        # 20 x 1.2 x 0.33 = 7.92
        ({"width": 1024, "height": 1024, "steps": 28, "smea": "smea", "strength": 0.33}, 8),
        ({"width": 1024, "height": 1024, "steps": 28, "strength": 0.01}, 2),
        # 20 x 1.3 = 26, whatever the strength is
        ({"width": 1024, "height": 1024, "steps": 28, "uncond_scale": 1.12}, 26),
        ({"width": 1024, "height": 1024, "steps": 28, "uncond_scale": 0.5}, 26),
        # 14 x 1.3 = 18.2
        ({"width": 1024, "height": 1024, "steps": 28, "generation": "v2", "uncond_scale": 0.5}, 19),
        ({"width": 64, "height": 64, "steps": 20}, 2),
        # What the web client shows: 2.986 + 13.388 = 16.37; x 1.4 = 23.8; 17 x 1.2 x 0.62 = 12.6; 17 x 0.12 = 2.04
        ({"width": 832, "height": 1216, "steps": 23}, 17),
        ({"width": 832, "height": 1216, "steps": 23, "smea": "smea_dyn"}, 24),
        ({"width": 832, "height": 1216, "steps": 23, "smea": "smea", "strength": 0.62}, 13),
        ({"width": 832, "height": 1216, "steps": 23, "strength": 0.12}, 3),
        # 9.286 + 90.49 = 99.8; x 1.4 is the most that is drawn
        ({"width": 2048, "height": 1536, "steps": 50, "smea": "smea_dyn"}, 140),
        # as 256 x 256: 0.193 + 5.656 = 5.85
        ({"width": 64, "height": 64, "steps": 150}, 6),
        # V4 has V3's formula
        ({"width": 1024, "height": 1024, "steps": 28, "generation": "v4"}, 20),
        # Opus: one image of up to 1024 x 1024 and 28 steps
        ({"width": 1024, "height": 1024, "steps": 28, "tier": "opus"}, 0),
        ({"width": 832, "height": 1216, "steps": 28, "tier": "opus", "smea": "smea_dyn", "uncond_scale": 0.5}, 0),
        ({"width": 1024, "height": 1024, "steps": 29, "tier": "opus"}, 21),
        ({"width": 1024, "height": 1088, "steps": 28, "tier": "opus"}, 22),
        ({"width": 1024, "height": 1024, "steps": 28, "tier": "scroll"}, 20),
        ({"width": 640, "height": 640, "steps": 28, "generation": "v1", "tier": "opus"}, 0),
        # 15.2665 x 1.17135 - 15.2252 = 2.657, at 28 of 28 steps and at 150
        ({"width": 512, "height": 512, "steps": 28, "generation": "v1"}, 3),
        ({"width": 512, "height": 512, "steps": 150, "generation": "v1"}, 15),
        # 2.657 x 0.7 = 1.86, rounded up once
        ({"width": 512, "height": 512, "steps": 28, "generation": "v1", "strength": 0.7}, 2),
        # 15.2665 x 1.26774 - 15.2252 = 4.129; x 0.7 = 2.89
        ({"width": 512, "height": 768, "steps": 28, "generation": "v1", "strength": 0.7}, 3),
        ({"width": 512, "height": 768, "steps": 28, "generation": "v1"}, 5),
        ({"width": 512, "height": 768, "steps": 150, "generation": "v2"}, 23),
        # 15.2665 x 1.88254 - 15.2252 = 13.515
        ({"width": 1024, "height": 1024, "steps": 28, "generation": "v2"}, 14),
    ],
)
def test_the_price_is_what_the_formula_gives_by_hand(arguments, price):
    assert anlas(**arguments) == price


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"height": 1088}, "the price of 1024x1088 with sampler euler_ancestral is unknown for v1"),
        ({"sampler": "dpmsolver++"}, r"with sampler dpmsolver\+\+ is unknown for v1"),
        ({"smea": "smea"}, "the price of smea is unknown for v1"),
        ({"smea": "smea_dyn", "generation": "v4"}, "the price of smea_dyn is unknown for v4"),
        ({"uncond_scale": 0.5}, "the price of uncond_scale 0.5 is unknown for v1"),
        ({"uncond_scale": 0.5, "generation": "v4"}, "the price of uncond_scale 0.5 is unknown for v4"),
        ({"uncond_scale": 0, "generation": "v3"}, "the price of uncond_scale 0 is unknown for v3"),
        ({"tier": "opus"}, "whether 1024x1024 is free for opus is unknown for v1"),
        (
            {"width": 2048, "height": 2048, "generation": "v3", "steps": 60},
            "of 158 Anlas; NovelAI draws none above 140",
        ),
    ],
)
def test_what_no_known_formula_covers_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        anlas(**{"width": 1024, "height": 1024, "steps": 28, "generation": "v1", **changes})


def priced(study, arm, **settings):
    """The price of an arm under settings of generate.anlas."""
    generate = study.generate.model_copy(update={"anlas": Anlas(**settings)})
    changed = {"arms": {"priced": Arm.model_validate({"method": "cfg", "scale": 3, **arm})}, "generate": generate}
    return arm_anlas(study.model_copy(update=changed), "priced")


CANVAS = {"width": 832, "height": 1216}
EULER = {"canvas": CANVAS, "sampler": {"scheduler": "euler", "steps": 28}}
SMEA = {"canvas": CANVAS, "sampler": {"scheduler": "smea_like", "steps": 28}}
NEGATIVE = {**EULER, "method": "negative", "negative_prompt": "bad"}


def test_an_arms_price_is_of_its_own_canvas_steps_and_sampler(study):
    assert priced(study, {}) == 2, "the networks of the tests draw 64x64"
    assert priced(study, EULER) == 20
    assert priced(study, SMEA) == 24


def test_the_settings_name_what_an_arm_cannot_say(study):
    assert priced(study, SMEA, sm_dyn=True) == 28
    assert priced(study, EULER, sm_dyn=True) == 20, "of the sampler smea_like alone"
    assert priced(study, {**NEGATIVE, "negative_strength": 0.8}) == 26
    assert priced(study, NEGATIVE) == 20
    assert priced(study, EULER, tier="opus") == 0
    # 15.2665 x 1.84114 - 15.2252 = 12.88
    assert priced(study, EULER, generation="v1") == 13


def test_a_price_that_is_unknown_is_none(study):
    assert priced(study, SMEA, generation="v1") is None
    assert priced(study, {**NEGATIVE, "negative_strength": 0.8}, generation="v1") is None
    assert priced(study, {**NEGATIVE, "negative_strength": -1}) is None
    assert priced(study, {**EULER, "canvas": {"width": 1024, "height": 1088}}, generation="v2") is None


def test_networks_are_priced_as_the_generation_of_their_architecture_unless_told():
    assert [Anlas().generation_of(family) for family in ("sd", "sdxl", "pixel")] == ["v1", "v3", "v3"]
    assert Anlas(generation="v2").generation_of("sdxl") == "v2"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"generation": "v5"}, "generate.anlas.generation is 'v5': Input should be 'v1', 'v2', 'v3' or 'v4'"),
        ({"generation": "v4", "sm_dyn": True}, "sm_dyn is unknown for v4; leave it out, or take generation v3"),
        ({"uncond_scale": 0.5}, "generate.anlas.uncond_scale is now negative_strength of an arm"),
        ({"tier": "gold"}, "generate.anlas.tier is 'gold': Input should be 'none', 'tablet', 'scroll' or 'opus'"),
    ],
)
def test_a_setting_without_a_known_price_is_refused(params, settings, message):
    params["generate"]["anlas"] = settings
    with pytest.raises(InputError, match=message):
        parse_study(params, "test")


def test_what_an_image_is_priced_as_changes_none_of_its_fingerprints(study):
    generate = study.generate.model_copy(update={"anlas": Anlas(generation="v2", tier="opus")})
    plans = [
        plan_arm(one, "negative", arm_texts(one, "negative"), "cpu")
        for one in (study, study.model_copy(update={"generate": generate}))
    ]
    assert plans[0] == plans[1]
