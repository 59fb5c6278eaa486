"""Laws of the guidance algebra and of the sampler, on small random networks."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.arm import Arm
from pipeline.guidance import EMPTY, GUIDE, MAIN, NEGATIVE, Guidance, Term, by_network, guidance_of
from pipeline.networks import load_network
from pipeline.sampler import sample
from pipeline.schedulers import SCHEDULERS, build_scheduler
from pipeline.text_encoder import load_text_encoder

PROMPTS = ["1person, solo, blue hair", "object, stones, white background", "scenery, hills, sun", "pattern, waves"]
SEEDS = [0, 1, 2, 3]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def parts(networks_folder: Path):
    networks = {name: load_network(networks_folder / name, CPU) for name in ("main", "guide")}
    return networks, load_text_encoder(networks_folder / "main", CPU)


def draw(parts, guidance, scheduler="ddim", negative="worst quality", prompts=PROMPTS, seeds=SEEDS, networks=None):
    own, encoder = parts
    texts = {"prompt": prompts, "empty": [""] * len(prompts), "negative": [negative] * len(prompts)}
    embeddings = {name: encoder.encode(values) for name, values in texts.items()}
    networks = networks or own
    scheduler = build_scheduler(scheduler, networks["main"].schedule.config)
    return sample(networks, embeddings, guidance, scheduler, 4, seeds)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("reference", [EMPTY, NEGATIVE, GUIDE])
def test_scale_one_is_the_plain_conditional(parts, reference, scheduler):
    plain, _ = draw(parts, Guidance(), scheduler)
    guided, trace = draw(parts, Guidance((Term(reference, 1.0),)), scheduler)
    assert torch.equal(plain, guided)
    assert all(size == 0 for step in trace for size in step.direction)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_an_empty_negative_prompt_is_classifier_free_guidance(parts, scheduler):
    cfg, _ = draw(parts, Guidance((Term(EMPTY, 3.0),)), scheduler)
    negative, _ = draw(parts, Guidance((Term(NEGATIVE, 3.0),)), scheduler, negative="")
    assert torch.equal(cfg, negative)


@pytest.mark.parametrize("scale", [0.0, 0.5, 2.0, 20.0])
def test_autoguidance_by_itself_changes_nothing(parts, scale):
    networks, _ = parts
    plain, _ = draw(parts, Guidance())
    guided, _ = draw(
        parts, Guidance((Term(GUIDE, scale),)), networks={"main": networks["main"], "guide": networks["main"]}
    )
    torch.testing.assert_close(plain, guided, atol=1e-4, rtol=0)


@pytest.mark.parametrize("reference", [EMPTY, NEGATIVE, GUIDE])
def test_guidance_does_something_at_other_scales(parts, reference):
    plain, _ = draw(parts, Guidance())
    guided, trace = draw(parts, Guidance((Term(reference, 3.0),)))
    assert (plain - guided).abs().max() > 1e-3
    assert all(size > 0 for step in trace for size in step.direction)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_picture_does_not_depend_on_its_batch(parts, scheduler):
    guidance = Guidance((Term(NEGATIVE, 2.0), Term(GUIDE, 1.5)))
    prompts, seeds = PROMPTS * 4, list(range(16))
    together, _ = draw(parts, guidance, scheduler, prompts=prompts, seeds=seeds)
    for k in (0, 7, 15):
        alone, _ = draw(parts, guidance, scheduler, prompts=[prompts[k]], seeds=[seeds[k]])
        torch.testing.assert_close(alone[0], together[k], atol=1e-4, rtol=0)


def test_terms_of_scale_one_cost_no_evaluation():
    assert Guidance((Term(EMPTY, 1.0), Term(GUIDE, 1.0))).predictions() == (MAIN,)
    assert Guidance((Term(EMPTY, 2.0), Term(GUIDE, 1.0))).predictions() == (MAIN, EMPTY)


def test_predictions_of_one_network_go_through_it_in_one_call(parts):
    networks, _ = parts
    calls = dict.fromkeys(networks, 0)

    def count(name):
        def hook(*_):
            calls[name] += 1

        return hook

    handles = [network.unet.register_forward_hook(count(name)) for name, network in networks.items()]
    draw(parts, Guidance((Term(EMPTY, 2.0), Term(NEGATIVE, 2.0), Term(GUIDE, 2.0))))
    for handle in handles:
        handle.remove()
    assert calls == {"main": 4, "guide": 4}
    assert by_network((MAIN, EMPTY, NEGATIVE, GUIDE)) == {"main": [MAIN, EMPTY, NEGATIVE], "guide": [GUIDE]}


@given(st.floats(-5, 5), st.floats(-5, 5), st.floats(0, 20))
def test_one_term_is_reference_plus_scaled_difference(main, reference, scale):
    predicted = {MAIN: torch.tensor([main], dtype=torch.float64), EMPTY: torch.tensor([reference], dtype=torch.float64)}
    guided = Guidance((Term(EMPTY, scale),)).combine(predicted)
    assert float(guided) == pytest.approx(reference + scale * (main - reference), abs=1e-9)


@given(st.floats(0, 20), st.floats(0, 20))
def test_terms_add_up_in_any_order(first, second):
    predicted = {p: torch.randn(2, 3, dtype=torch.float64) for p in (MAIN, EMPTY, GUIDE)}
    terms = (Term(EMPTY, first), Term(GUIDE, second))
    torch.testing.assert_close(Guidance(terms).combine(predicted), Guidance(terms[::-1]).combine(predicted))


def test_methods_name_their_reference():
    assert guidance_of(Arm(method="unguided", scale=1)).terms == ()
    assert guidance_of(Arm(method="cfg", scale=3)).terms == (Term(EMPTY, 3),)
    assert guidance_of(Arm(method="negative", scale=3, negative_prompt="bad")).terms == (Term(NEGATIVE, 3),)
    assert guidance_of(Arm(method="autoguidance", scale=3)).terms == (Term(GUIDE, 3),)
