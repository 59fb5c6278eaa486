"""Laws of the guidance algebra and of the sampler, on small random networks."""

from pathlib import Path

import diffusers.guiders
import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.guiders import AdaptiveProjectedGuidance, ClassifierFreeGuidance, SkipLayerGuidance
from diffusers.models.attention_processor import PAGIdentitySelfAttnProcessor2_0
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.generation.arm_guidance import guidance_of, prediction_of
from pipeline.generation.arm_texts import unrelated_prompts
from pipeline.guidance.algebra import (
    EMPTY,
    GUIDE,
    MAIN,
    NEGATIVE,
    UNRELATED,
    Guidance,
    Perturbation,
    Term,
    Walk,
    by_way,
)
from pipeline.guidance.dynamic_negative import Dynamic
from pipeline.guidance.postprocess.directions import APG
from pipeline.guidance.postprocess.guider import Guider
from pipeline.guidance.postprocess.results import Rescale
from pipeline.guidance.scale_schedules import Moment, NoiseInterval, Ramp, Window
from pipeline.networks.denoisers.unet import load_network
from pipeline.networks.noise_path import to_x0
from pipeline.networks.perturbation import blurred, perturbed
from pipeline.networks.text.text_encoder import load_text_encoder
from pipeline.prompting.presets import QUALITY_TAGS
from pipeline.sampling.sampler import sample
from pipeline.sampling.steppers import build_stepper
from pipeline.study.arm import Arm
from pipeline.study.sampler import Sampler

PROMPTS = ["1person, solo, blue hair", "object, stones, white background", "scenery, hills, sun", "pattern, waves"]
SEEDS = [0, 1, 2, 3]
CPU = torch.device("cpu")
# Deterministic, ancestral, and one that evaluates the network twice a step on a path of its own.
SAMPLERS = ("ddim", "euler_ancestral", "dpmsolver++_sde")
AT = Moment(0, 4, 999, 14.6, 3.0)


@pytest.fixture(scope="module")
def parts(networks_folder: Path):
    networks = {name: load_network(networks_folder / name, CPU) for name in ("main", "guide")}
    return networks, load_text_encoder(networks_folder / "main", CPU)


def draw(parts, guidance, scheduler="ddim", negative="worst quality", prompts=PROMPTS, seeds=SEEDS, networks=None):
    own, encoder = parts
    texts = {
        "prompt": prompts,
        "empty": [""] * len(prompts),
        "negative": [negative] * len(prompts),
        "unrelated": prompts[1:] + prompts[:1],
    }
    embeddings = {name: encoder.encode(values) for name, values in texts.items()}
    networks = networks or own
    stepper = build_stepper(Sampler(scheduler=scheduler, steps=4), networks["main"].schedule.config)
    return sample(networks, embeddings, guidance, stepper, 4, seeds)


@pytest.mark.parametrize("scheduler", SAMPLERS)
@pytest.mark.parametrize("reference", [EMPTY, NEGATIVE, GUIDE])
def test_scale_one_is_the_plain_conditional(parts, reference, scheduler):
    plain, _ = draw(parts, Guidance(), scheduler)
    guided, trace = draw(parts, Guidance((Term(reference, 1.0),)), scheduler)
    assert torch.equal(plain, guided)
    assert all(size == 0 for step in trace for size in step.direction)


@pytest.mark.parametrize("scheduler", SAMPLERS)
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


@pytest.mark.parametrize("scheduler", SAMPLERS)
def test_an_image_does_not_depend_on_its_batch(parts, scheduler):
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
    assert by_way((MAIN, EMPTY, GUIDE, NEGATIVE)) == {
        ("main", None, 0, None): [MAIN, EMPTY, NEGATIVE],
        ("guide", None, 0, None): [GUIDE],
    }


@given(st.floats(-5, 5), st.floats(-5, 5), st.floats(0, 20))
def test_one_term_is_reference_plus_scaled_difference(main, reference, scale):
    predicted = {MAIN: torch.tensor([main], dtype=torch.float64), EMPTY: torch.tensor([reference], dtype=torch.float64)}
    guided = Walk(Guidance((Term(EMPTY, scale),))).combine(predicted, AT)
    assert float(guided) == pytest.approx(reference + scale * (main - reference), abs=1e-9)


@given(st.floats(0, 20), st.floats(0, 20))
def test_terms_add_up_in_any_order(first, second):
    predicted = {p: torch.randn(2, 3, dtype=torch.float64) for p in (MAIN, EMPTY, GUIDE)}
    terms = (Term(EMPTY, first), Term(GUIDE, second))
    both = [Walk(Guidance(order)).combine(predicted, AT) for order in (terms, terms[::-1])]
    torch.testing.assert_close(*both)


def test_methods_name_their_reference():
    assert guidance_of(Arm(method="unguided", scale=1)).terms == ()
    assert guidance_of(Arm(method="cfg", scale=3)).terms == (Term(EMPTY, 3),)
    assert guidance_of(Arm(method="negative", scale=3, negative_prompt="bad")).terms == (Term(NEGATIVE, 3),)
    assert guidance_of(Arm(method="autoguidance", scale=3)).terms == (Term(GUIDE, 3),)


def test_an_interval_that_no_noise_level_meets_is_unguided(parts):
    plain, _ = draw(parts, Guidance())
    for outside in (NoiseInterval(name="interval", lo=1e6, hi=1e7), NoiseInterval(name="interval", lo=0, hi=1e-6)):
        guided, trace = draw(parts, Guidance((Term(EMPTY, 3.0, outside),)))
        assert torch.equal(plain, guided)
        assert all(step.references == () for step in trace), "nothing was evaluated for it"


@given(st.floats(1e-3, 1e3), st.floats(0, 100), st.floats(1e-3, 100))
def test_an_interval_guides_above_lo_up_to_hi(sigma, lo, width):
    interval = NoiseInterval(name="interval", lo=lo, hi=lo + width)
    assert interval.factor(Moment(3, 10, 500, sigma, 0)) == (1 if lo < sigma <= lo + width else 0)
    assert interval.factor(Moment(3, 10, 500, interval.hi, 0)) == 1
    assert interval.factor(Moment(3, 10, 500, interval.lo, 0)) == 0


@given(st.integers(2, 60), st.floats(0, 1), st.floats(0, 1), st.sampled_from(["linear", "cosine"]))
def test_a_ramp_starts_and_ends_where_it_says_and_never_turns(steps, begin, end, name):
    ramp = Ramp(name=name, begin=begin, end=end)
    factors = [ramp.factor(Moment(k, steps, 0, 1, 0)) for k in range(steps)]
    assert (factors[0], factors[-1]) == pytest.approx((begin, end))
    assert factors == pytest.approx(sorted(factors, reverse=begin > end))


@given(st.integers(1, 60), st.floats(0, 0.9), st.floats(0.05, 1))
def test_a_window_covers_the_steps_that_diffusers_guiders_cover(steps, start, length):
    window = Window(name="window", start=start, stop=min(1.0, start + length))
    guider = ClassifierFreeGuidance(guidance_scale=3.0, start=window.start, stop=window.stop)
    for k in range(steps):
        guider.set_state(k, steps, torch.tensor(0))
        assert window.factor(Moment(k, steps, 0, 1, 0)) == guider.num_conditions - 1


def test_only_steps_inside_a_window_cost_an_evaluation(parts):
    _, trace = draw(parts, Guidance((Term(EMPTY, 3.0, Window(name="window", start=0.5)),)))
    assert [step.references for step in trace] == [(), (), ("empty",), ("empty",)]
    assert [bool((step.direction > 0).all()) for step in trace] == [False, False, True, True]


@given(st.floats(1, 20), st.floats(0, 1))
def test_the_mix_spends_one_budget_and_has_cfg_and_autoguidance_as_its_ends(scale, share):
    def mix(a):
        terms = [{"reference": "empty", "share": 1 - a}, {"reference": "guide", "share": a}]
        return guidance_of(Arm(method="mix", scale=scale, terms=terms))

    assert sum(term.scale - 1 for term in mix(share).terms) == pytest.approx(scale - 1, abs=1e-9)
    predicted = {p: torch.randn(2, 3, 4, 4, dtype=torch.float64) for p in (MAIN, EMPTY, GUIDE)}
    for a, method in ((0, "cfg"), (1, "autoguidance")):
        alone = guidance_of(Arm(method=method, scale=scale))
        torch.testing.assert_close(Walk(mix(a)).combine(predicted, AT), Walk(alone).combine(predicted, AT))
        assert mix(a).predictions() == alone.predictions(), "the other end's term costs nothing"


def test_positive_as_negative_prompt_is_unguided(parts):
    plain, _ = draw(parts, Guidance(), prompts=[PROMPTS[0]] * 4)
    guided, _ = draw(parts, Guidance((Term(NEGATIVE, 5.0),)), negative=PROMPTS[0], prompts=[PROMPTS[0]] * 4)
    torch.testing.assert_close(plain, guided, atol=1e-4, rtol=0)


def test_probes_are_recorded_and_change_nothing(parts):
    for terms in ((), (Term(EMPTY, 3.0),)):
        plain, _ = draw(parts, Guidance(terms))
        probed, trace = draw(parts, Guidance(terms, probes=(NEGATIVE, EMPTY, GUIDE)))
        torch.testing.assert_close(plain, probed, atol=1e-5, rtol=0)
        for step in trace:
            assert set(step.references) == {"negative", "empty", "guide"}
            assert step.relative_norms.shape == step.cosines.shape == (4, 3)
            assert (step.relative_norms > 0).all()
            assert (step.cosines.abs() <= 1 + 1e-5).all()


def test_the_trace_measures_directions_in_x0(parts):
    """One step by hand: the cosine and the norms are those of the predictions turned to x0."""
    from pipeline.guidance.trace import trace_step

    predicted = {p: torch.randn(2, 3, 4, 4, dtype=torch.float64) for p in (MAIN, EMPTY, GUIDE)}
    a, b, x = 0.6, 0.8, torch.randn(2, 3, 4, 4, dtype=torch.float64)
    x0 = {p: to_x0(e, "epsilon", x, a, b).flatten(1).float() for p, e in predicted.items()}
    at, main_x0 = Moment(0, 1, 500, b / a, 0.0), to_x0(predicted[MAIN], "epsilon", x, a, b)
    step = trace_step(at, predicted[EMPTY], predicted, MAIN, main_x0, b / a)
    away = [x0[MAIN] - x0[r] for r in (EMPTY, GUIDE)]
    torch.testing.assert_close(step.cosines[:, 0], torch.cosine_similarity(*away))
    for r in range(2):
        torch.testing.assert_close(step.relative_norms[:, r], away[r].norm(dim=1) / x0[MAIN].norm(dim=1))
    torch.testing.assert_close(step.direction, away[0].square().mean(1).sqrt())


@pytest.mark.parametrize("kind", ["pag", "seg", "skip_layers"])
def test_a_damaged_main_network_is_another_reference_and_heals(parts, kind):
    unet = parts[0]["main"].unet
    before = fingerprint_of_hooks(unet)
    plain, _ = draw(parts, Guidance())
    damaged = prediction_of(kind, Arm(method=kind, scale=3))
    guided, trace = draw(parts, Guidance((Term(damaged, 3.0),)))
    assert (plain - guided).abs().max() > 1e-4
    assert all((step.relative_norms > 1e-5).all() for step in trace)
    assert fingerprint_of_hooks(unet) == before
    assert torch.equal(draw(parts, Guidance())[0], plain)


@pytest.mark.parametrize("kind", ["pag", "seg", "skip_layers"])
def test_damage_heals_after_an_exception(parts, kind):
    unet = parts[0]["main"].unet
    before = fingerprint_of_hooks(unet)
    during = []

    def fail():
        with perturbed(unet, Perturbation(kind, ("mid_block",)), (16, 16)):
            during.extend(fingerprint_of_hooks(unet))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert during != before
    assert fingerprint_of_hooks(unet) == before


def fingerprint_of_hooks(unet):
    """Everything a perturbation could leave behind: hooks, attention processors, replaced forwards."""
    return [
        (name, *module._forward_hooks, *module._forward_pre_hooks, "forward" in vars(module), id(processor))
        for name, module in unet.named_modules()
        if (processor := getattr(module, "processor", None)) or True
    ]


def test_identity_attention_is_that_of_diffusers_pag_processor(parts):
    attention = parts[0]["main"].unet.mid_block.attentions[0].transformer_blocks[0].attn1
    hidden = torch.randn(2, 64, attention.to_q.in_features)
    theirs = PAGIdentitySelfAttnProcessor2_0()(attention, hidden.repeat(2, 1, 1)).chunk(2)[1]
    with perturbed(parts[0]["main"].unet, Perturbation("pag", ("mid_block",)), (16, 16)):
        torch.testing.assert_close(attention(hidden), theirs)


def test_blurred_queries_keep_their_mean_and_lose_detail():
    queries = torch.randn(2, 6 * 8, 5)
    narrow, wide = blurred(queries, 6, 8, 0.5), blurred(queries, 6, 8, 3.0)
    assert queries.std() > narrow.std() > wide.std()
    torch.testing.assert_close(blurred(queries, 6, 8, 1e-3), queries)
    everywhere = queries.mean(1, keepdim=True).expand_as(queries)
    torch.testing.assert_close(blurred(queries, 6, 8, None), everywhere)
    flat = torch.ones(1, 48, 2)
    torch.testing.assert_close(blurred(flat, 6, 8, 2.0), flat)


def test_layers_that_hold_no_transformer_are_refused_with_those_that_do(parts):
    with (
        pytest.raises(
            InputError,
            match=r"no transformer block under 'mid'; its blocks are .*mid_block.attentions.0.transformer_blocks.0",
        ),
        perturbed(parts[0]["main"].unet, Perturbation("pag", ("mid",)), (16, 16)),
    ):
        pass


def test_an_unrelated_prompt_is_another_reference_than_the_empty_one(parts):
    unrelated, _ = draw(parts, Guidance((Term(UNRELATED, 3.0),)))
    empty, _ = draw(parts, Guidance((Term(EMPTY, 3.0),)))
    assert (unrelated - empty).abs().max() > 1e-4


def test_unrelated_prompts_are_other_texts_of_the_study_in_a_fixed_order():
    plain = Arm(method="independent", scale=3)
    assert unrelated_prompts(plain, ["a", "a", "b"], "a1111") == ["b", "b", "a"]
    assert unrelated_prompts(Arm(method="independent", scale=3, prompt="empty"), ["a", "b"], "a1111") == ["b", "a"]
    with pytest.raises(InputError, match="all 2 are 'a'"):
        unrelated_prompts(plain, ["a", "a"], "a1111")


def test_unrelated_prompts_have_the_quality_tags_of_the_arm():
    preset = next(name for name, found in QUALITY_TAGS.items() if found.place == "suffix")
    tags = QUALITY_TAGS[preset][0]
    tagged = Arm(method="independent", scale=3, quality_preset=preset)
    # Not the image's own prompt without its tags.
    assert unrelated_prompts(tagged, ["a", "a", "b"], "a1111") == [f"b, {tags}", f"b, {tags}", f"a, {tags}"]


@pytest.mark.parametrize("strength", [-0.5, 0.5, 1.3])
def test_a_negative_prompts_strength_mixes_its_prediction_with_that_of_the_empty_text(strength):
    """NovelAI's undesired content strength: e = empty + u (negative - empty) is what guidance moves away from."""
    arm = Arm(method="negative", scale=4, negative_prompt="bad", negative_strength=strength)
    predicted = {p: torch.randn(2, 3, 4, 4, dtype=torch.float64) for p in (MAIN, EMPTY, NEGATIVE)}
    guidance = guidance_of(arm)
    assert set(guidance.predictions()) == {MAIN, EMPTY, NEGATIVE}
    away = predicted[EMPTY] + strength * (predicted[NEGATIVE] - predicted[EMPTY])
    found = Walk(guidance).combine(predicted, AT)
    torch.testing.assert_close(found, away + 4 * (predicted[MAIN] - away))


def test_a_strength_of_one_is_the_negative_prompt_and_of_none_plain_cfg():
    def guided(method, **more):
        return guidance_of(Arm(method=method, scale=4, **more))

    negative = guided("negative", negative_prompt="bad")
    assert guided("negative", negative_prompt="bad", negative_strength=1.0) == negative
    none = guided("negative", negative_prompt="bad", negative_strength=0.0)
    assert set(none.predictions()) == set(guided("cfg").predictions()) == {MAIN, EMPTY}
    predicted = {p: torch.randn(1, 3, 4, 4, dtype=torch.float64) for p in (MAIN, EMPTY)}
    torch.testing.assert_close(Walk(none).combine(predicted, AT), Walk(guided("cfg")).combine(predicted, AT))
    attention = {"name": "nag", "scale": 3, "text": "negative"}
    both = Arm(method="negative", scale=4, negative_prompt="bad", negative_strength=0.5, attention=attention)
    assert both.shown_method == "negative of strength 0.5 + nag 3"
    with pytest.raises(ValueError, match="negative_strength is for method negative; method cfg says"):
        guided("cfg", negative_strength=0.5)


@given(st.floats(1, 20))
def test_apg_without_its_three_changes_is_classifier_free_guidance(scale):
    predicted = {p: torch.randn(2, 3, 4, 4, dtype=torch.float64) for p in (MAIN, EMPTY)}
    plain = Walk(Guidance((Term(EMPTY, scale),))).combine(predicted, AT)
    apg = APG(name="apg", eta=1, momentum=None, norm=None)
    torch.testing.assert_close(Walk(Guidance((Term(EMPTY, scale),), apg)).combine(predicted, AT), plain)


def test_apg_leaves_nothing_along_the_main_prediction_and_no_step_over_its_norm():
    predicted = {p: torch.randn(2, 3, 4, 4, dtype=torch.float64) for p in (MAIN, EMPTY)}
    apg = APG(name="apg", eta=0, momentum=None, norm=0.5)
    update = Walk(Guidance((Term(EMPTY, 2.0),), apg)).combine(predicted, AT) - predicted[MAIN]
    assert (update * predicted[MAIN]).sum((1, 2, 3)).abs().max() < 1e-9
    assert update.flatten(1).norm(dim=1).max() <= 0.5


def walk_against(guider, guidance, steps=4):
    """The project's guided prediction beside a diffusers guider's, over steps, on the same predictions."""
    walk, scale = Walk(guidance), guidance.terms[0].scale
    torch.manual_seed(0)
    for k in range(steps):
        predicted = {p: torch.randn(2, 3, 4, 4) for p in (MAIN, EMPTY)}
        at = Moment(k, steps, 900 - k, 5.0 - k, 4.0 - k)
        guider.set_state(k, steps, torch.tensor(at.timestep))
        guider.prepare_inputs({})
        walk.predictions(at)
        ours = walk.combine(predicted, at)
        walk.probed(at)  # as the sampler asks, between two steps
        yield ours, guider.forward(predicted[MAIN], predicted[EMPTY]).pred, scale


def test_apg_is_diffusers_apg_in_the_formulation_of_the_paper():
    scale = 4.0
    guider = AdaptiveProjectedGuidance(scale - 1, -0.5, 2.0, eta=0.3, use_original_formulation=True)
    guidance = Guidance((Term(EMPTY, scale),), APG(name="apg", eta=0.3, momentum=-0.5, norm=2.0))
    for ours, theirs, _ in walk_against(guider, guidance):
        torch.testing.assert_close(ours, theirs)


def test_rescale_is_diffusers_guidance_rescale():
    guider = ClassifierFreeGuidance(5.0, guidance_rescale=0.7)
    for ours, theirs, _ in walk_against(guider, Guidance((Term(EMPTY, 5.0),), Rescale(name="rescale", phi=0.7))):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("ClassifierFreeGuidance", {"start": 0.3, "stop": 0.8}),
        ("ClassifierFreeZeroStarGuidance", {"zero_init_steps": 0}),
        ("AdaptiveProjectedGuidance", {"adaptive_projected_guidance_momentum": -0.5, "eta": 0.0}),
        ("AdaptiveProjectedMixGuidance", {"adaptive_projected_guidance_start_step": 2}),
        ("TangentialClassifierFreeGuidance", {}),
    ],
)
def test_a_diffusers_guider_runs_as_it_is(name, arguments):
    post = Guider(name="guider", guider=name, arguments=arguments)
    guider = getattr(diffusers.guiders, name)(guidance_scale=3.0, **arguments)
    for ours, theirs, _ in walk_against(guider, Guidance((Term(EMPTY, 3.0),), post)):
        assert torch.equal(ours, theirs)


def test_a_guider_of_damaged_layers_takes_its_references_from_the_terms():
    """diffusers' SkipLayerGuidance mixes the empty prompt and skipped layers; its own hooks are not needed."""
    arguments = {"skip_layer_guidance_layers": [0], "skip_layer_guidance_start": 0.0, "skip_layer_guidance_stop": 1.0}
    terms = [{"reference": "empty"}, {"reference": "skip_layers"}]
    post = {"name": "guider", "guider": "SkipLayerGuidance", "arguments": arguments}
    guidance = guidance_of(Arm(method="mix", scale=3, terms=terms, post=post))
    skipped = guidance.terms[1].reference
    predicted = {p: torch.randn(2, 3, 4, 4) for p in (MAIN, EMPTY, skipped)}
    at = Moment(2, 10, 700, 2.0, 1.0)
    guider = SkipLayerGuidance(guidance_scale=3.0, **arguments)
    guider.set_state(2, 10, torch.tensor(700))
    theirs = guider.forward(predicted[MAIN], predicted[EMPTY], predicted[skipped]).pred
    assert torch.equal(Walk(guidance).combine(predicted, at), theirs)


def test_a_guider_costs_no_evaluation_outside_its_window(parts):
    post = Guider(name="guider", guider="ClassifierFreeGuidance", arguments={"start": 0.5})
    _, trace = draw(parts, Guidance((Term(EMPTY, 3.0),), post))
    assert [step.references for step in trace] == [(), (), ("empty",), ("empty",)]


def ancestral(parts, guidance, seeds=SEEDS, prompts=PROMPTS, negative="worst quality"):
    networks, encoder = parts
    texts = {"prompt": prompts, "negative": [negative] * len(prompts)}
    embeddings = {name: encoder.encode(values) for name, values in texts.items()}
    stepper = build_stepper(Sampler(scheduler="euler_ancestral", steps=6), networks["main"].schedule.config)
    return sample(networks, embeddings, guidance, stepper, 6, seeds)


def test_dynamic_negative_guidance_with_p_fixed_is_the_static_negative_prompt(parts):
    static, _ = ancestral(parts, Guidance((Term(NEGATIVE, 3.0),)))
    fixed = Dynamic(name="dynamic", prior=0.5, temperature=0, offset=0)
    dynamic, _ = ancestral(parts, Guidance((Term(NEGATIVE, 3.0, fixed),)))
    torch.testing.assert_close(static, dynamic, atol=1e-4, rtol=0)


def test_dynamic_negative_guidance_with_p_near_zero_is_no_guidance(parts):
    plain, _ = ancestral(parts, Guidance())
    never = Dynamic(name="dynamic", prior=1e-9, p_min=1e-12, p_max=1e-9)
    dynamic, _ = ancestral(parts, Guidance((Term(NEGATIVE, 3.0, never),)))
    torch.testing.assert_close(plain, dynamic, atol=1e-4, rtol=0)


def test_the_posterior_of_dynamic_negative_guidance_is_bayes_rule():
    """Temperature 1 and offset 0: p' / p is the ratio of the DDPM posteriors' densities, here computed in DDPM's own
    coordinates and betas as in the authors' compute_posterior_DNG."""
    torch.manual_seed(0)
    schedule = DDPMScheduler(beta_schedule="linear")
    t, alphas = 600, schedule.alphas_cumprod.double()
    a2, a2_next = alphas[t], alphas[t - 1]
    alpha, v = a2 / a2_next, (1 - a2_next) / (1 - a2) * (1 - a2 / a2_next)
    x, after = torch.randn(2, 3, 4, 4, dtype=torch.float64), torch.randn(2, 3, 4, 4, dtype=torch.float64)
    e = {name: 0.01 * torch.randn_like(x) for name in ("main", "negative")}
    mean = {name: (x - (1 - alpha) / (1 - a2).sqrt() * noise) / alpha.sqrt() for name, noise in e.items()}
    after = mean["main"] + v.sqrt() * after
    distance = {name: (after - mu).square().sum((1, 2, 3)) for name, mu in mean.items()}
    p, temperature, offset = torch.tensor([0.2, 0.4], dtype=torch.float64), 0.7, 1e-4
    expected = p * ((-temperature * (distance["negative"] - distance["main"]) + offset) / (2 * v)).exp()

    sigma, next_sigma = (float(((1 - a) / a).sqrt()) for a in (a2, a2_next))
    at = Moment(5, 10, t, sigma, next_sigma)
    x0 = {name: (x - (1 - a2).sqrt() * noise) / a2.sqrt() for name, noise in e.items()}
    rule = Dynamic(name="dynamic", prior=0.2, temperature=temperature, offset=offset, p_min=1e-12, p_max=0.99)
    ours = rule.updated(p, at, x / a2.sqrt(), after / a2_next.sqrt(), x0["main"], x0["negative"], 3.0)
    torch.testing.assert_close(ours, expected.clamp(1e-12, 0.99), rtol=1e-6, atol=0)
    assert ((ours - p).abs() > 1e-6).all()


def test_a_dynamic_scale_does_not_depend_on_the_batch(parts):
    rule = Dynamic(name="dynamic", prior=0.3, temperature=0.2)
    together, _ = ancestral(parts, Guidance((Term(NEGATIVE, 3.0, rule),)))
    alone, _ = ancestral(parts, Guidance((Term(NEGATIVE, 3.0, rule),)), seeds=[2], prompts=[PROMPTS[2]])
    torch.testing.assert_close(together[2], alone[0], atol=1e-4, rtol=0)
