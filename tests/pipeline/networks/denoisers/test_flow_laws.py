"""The laws of guidance hold on each family along rectified flow."""

import pytest
from flow_studies import FLOWS, SEEDS, TEXTS, WITH_FLUX2, Flows, far, pixels

from pipeline.generation.shard_plan import common_inputs
from pipeline.networks.families import FAMILIES


@pytest.mark.parametrize("name", FLOWS)
def test_scale_one_costs_no_more_than_the_plain_conditional_and_is_it(flows: Flows, name: str) -> None:
    plain = flows.draw(name)
    for method in ({"method": "cfg"}, {"method": "negative", "negative_prompt": "lowres"}, {"method": "autoguidance"}):
        one = flows.draw(name, f"{name}_guide", scale=1.0, **method)
        assert far(plain, one) == 0
        assert one.cost.nfe == plain.cost.nfe == 2 * 3
        assert one.cost.flops == plain.cost.flops > 0


@pytest.mark.parametrize("name", WITH_FLUX2)
def test_a_negative_that_is_the_prompt_and_a_guide_that_is_main_change_nothing(flows: Flows, name: str) -> None:
    plain = flows.draw(name)
    same = flows.draw(
        name, method="negative", scale=4.0, negative_from_prompt=True, texts=TEXTS | {"negative": TEXTS["prompt"]}
    )
    itself = flows.draw(name, name, method="autoguidance", scale=4.0)
    assert max(far(plain, same), far(plain, itself)) <= 1  # of rounding: prompt and negative share a batch


@pytest.mark.parametrize("name", FLOWS)
def test_a_guide_of_another_width_guides(flows: Flows, name: str) -> None:
    guided = flows.draw(name, f"{name}_guide", method="autoguidance", scale=2.0)
    assert far(flows.draw(name), guided) > 3
    assert guided.cost.nfe == 2 * 2 * 3


@pytest.mark.parametrize("name", FLOWS)
def test_an_image_does_not_depend_on_its_batch(flows: Flows, name: str) -> None:
    both = flows.draw(name, method="cfg", scale=4.0)
    alone = flows.draw(
        name, method="cfg", scale=4.0, texts={key: [texts[1]] for key, texts in TEXTS.items()}, seeds=[SEEDS[1]]
    )
    assert int((pixels(both)[1] - pixels(alone)[0]).abs().max()) <= 1


@pytest.mark.parametrize("name", FLOWS)
def test_a_negative_of_any_length_stands_beside_a_prompt_of_any_length(flows: Flows, name: str) -> None:
    texts = {
        "prompt": ["hat", "1person, blue hair, smile"],
        "negative": ["lowres", "lowres, blurry, worst quality, sketch"],
    }
    arm = {"method": "negative", "scale": 4.0, "negative_prompt": "lowres"}
    found = flows.draw(name, texts=texts, **arm)
    other = flows.draw(name, texts=texts | {"negative": ["lowres", "lowres"]}, **arm)
    assert int((pixels(found)[0] - pixels(other)[0]).abs().max()) <= 1
    assert int((pixels(found)[1] - pixels(other)[1]).abs().max()) > 1


@pytest.mark.parametrize(("name", "usual"), [("flux", 3.5), ("flux2", 4.0)])
def test_embedded_guidance_is_part_of_what_determines_an_image(flows: Flows, name: str, usual: float) -> None:
    plain, told = (common_inputs(flows.study(name, embedded_guidance=g), "arm", "cpu") for g in (None, 2.0))
    assert plain["arm"] != told["arm"]
    assert far(flows.draw(name), flows.draw(name, embedded_guidance=usual)) == 0
    assert far(flows.draw(name), flows.draw(name, embedded_guidance=9.0)) > 1


def test_an_arm_that_leaves_out_the_norm_of_qwen_image_is_another_arm(flows: Flows) -> None:
    as_the_pipeline = flows.draw("qwen_image", method="cfg", scale=4.0)
    without = flows.draw("qwen_image", method="cfg", scale=4.0, built_in_post=False)
    assert far(as_the_pipeline, without) > 1
    plans = [
        common_inputs(flows.study("qwen_image", method="cfg", scale=4.0, **own), "arm", "cpu")
        for own in ({}, {"built_in_post": False})
    ]
    assert plans[0]["arm"] != plans[1]["arm"]


@pytest.mark.parametrize("name", ["lumina2", "z_image"])
def test_the_post_process_of_a_pipeline_is_built_in_and_can_be_left_out(flows: Flows, name: str) -> None:
    guided = flows.draw(name, method="cfg", scale=4.0)
    explicit = flows.draw(name, method="cfg", scale=4.0, post={"name": "renorm", "per": "row"})
    assert (far(guided, explicit) == 0) == bool(FAMILIES[name].post)
    if FAMILIES[name].post:
        assert far(guided, flows.draw(name, method="cfg", scale=4.0, built_in_post=False)) > 1
        assert far(flows.draw(name), flows.draw(name, built_in_post=False)) == 0
