"""NovelAI's price of an image, against values computed by hand from its formulas."""

import pytest

from pipeline.cost.anlas import anlas
from pipeline.generate import arm_anlas
from pipeline.study.arm import Arm


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
        ({"width": 1024, "height": 1024, "steps": 28, "uncond_scale": 1.12}, 23),
        ({"width": 64, "height": 64, "steps": 20}, 2),
        # 15.2665 x 1.17135 - 15.2252 = 2.657, at 28 of 28 steps and at 150
        ({"width": 512, "height": 512, "steps": 28, "generation": "v1"}, 3),
        ({"width": 512, "height": 512, "steps": 150, "generation": "v1"}, 15),
        # 15.2665 x 1.26774 - 15.2252 = 4.129
        ({"width": 512, "height": 768, "steps": 28, "generation": "v1"}, 5),
        ({"width": 512, "height": 768, "steps": 150, "generation": "v2"}, 23),
        # 15.2665 x 1.88254 - 15.2252 = 13.515
        ({"width": 1024, "height": 1024, "steps": 28, "generation": "v2"}, 14),
    ],
)
def test_the_price_is_what_the_formula_gives_by_hand(arguments, price):
    assert anlas(**arguments) == price


@pytest.mark.parametrize("changes", [{"height": 1088}, {"smea": "smea"}])
def test_what_the_old_formula_does_not_cover_is_refused(changes):
    with pytest.raises(ValueError, match="is unknown for v1"):
        anlas(**{"width": 1024, "height": 1024, "steps": 28, "generation": "v1", **changes})


def test_an_arms_price_is_of_its_own_canvas_steps_and_sampler(study):
    def price(**changes):
        arm = Arm.model_validate({"method": "cfg", "scale": 3, **changes})
        return arm_anlas(study.model_copy(update={"arms": {"priced": arm}}), "priced")

    canvas = {"width": 832, "height": 1216}
    assert price() == 2, "the networks of the tests draw 64x64"
    assert price(canvas=canvas, sampler={"scheduler": "euler", "steps": 28}) == 20
    assert price(canvas=canvas, sampler={"scheduler": "smea_like", "steps": 28}) == 24
