"""Laws of post-processes: neutral settings, independent formulas, spaces, order, and what is refused."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diffusers import QwenImagePipeline
from diffusers.pipelines.deprecated.stable_diffusion_safe import SafetyConfig
from diffusers.pipelines.deprecated.stable_diffusion_safe.pipeline_stable_diffusion_safe import (
    StableDiffusionPipelineSafe,
)
from pydantic import ValidationError
from scipy.fft import dctn, idctn

from pipeline.generation.arm_guidance import guidance_of
from pipeline.guidance.algebra import EMPTY, GUIDE, MAIN, NEGATIVE, Guidance, Term, Walk
from pipeline.guidance.postprocess.directions import APG, SlidingMode
from pipeline.guidance.postprocess.history import HiGS, Momentum, high_pass
from pipeline.guidance.postprocess.negatives import SEGA, Contrastive, PerpNeg, SafeLatent
from pipeline.guidance.postprocess.results import Renorm, Rescale
from pipeline.guidance.scale_schedules import Moment, Window
from pipeline.networks.denoisers.unet import load_network
from pipeline.networks.noise_path import RECTIFIED_FLOW, VARIANCE_PRESERVING, OutputSpaces
from pipeline.networks.text.text_encoder import load_text_encoder
from pipeline.sampling.sampler import sample
from pipeline.sampling.steppers import build_stepper
from pipeline.study.arm import Arm
from pipeline.study.sampler import Sampler

PROMPTS = ["1person, solo, blue hair", "object, stones, white background", "scenery, hills, sun", "pattern, waves"]
CPU = torch.device("cpu")
STEPS = 4
PERP_NEG = PerpNeg(name="perp_neg")
CCFG = Contrastive(name="ccfg", tau=0.01)
SLD = SafeLatent(name="sld", strength=2.0, threshold=0.3, warmup=0.25, momentum=0.3, keep=0.4)
SEMANTIC = SEGA(name="sega", warmup=0.25)
CONTRASTING = {"perp_neg": PERP_NEG, "ccfg": CCFG, "sld": SLD, "sega": SEMANTIC}
RENORMS = {
    "norm per token": Renorm(name="renorm", per="token"),
    "norm per patch": Renorm(name="renorm", per="patch"),
    "norm per image": Renorm(name="renorm", per="image"),
    "norm per row": Renorm(name="renorm", per="row"),
    "capped per token": Renorm(name="renorm", per="token", cap=1.1),
    "capped per image": Renorm(name="renorm", per="image", cap=1.1),
}
OTHERS = {
    **RENORMS,
    "rescale": Rescale(name="rescale", phi=0.7),
    "apg": APG(name="apg", eta=0.5, norm=2.0, space="x0"),
    "smc": SlidingMode(name="smc"),
}
HISTORY = {"momentum": Momentum(name="momentum"), "higs": HiGS(name="higs", low=0.1)}


@pytest.fixture(scope="module")
def parts(networks_folder: Path):
    network = load_network(networks_folder / "main", CPU)
    encoder = load_text_encoder(networks_folder / "main", CPU)
    texts = {"prompt": PROMPTS, "empty": [""] * 4, "negative": ["worst quality"] * 4}
    return network, {name: encoder.encode(values) for name, values in texts.items()}


def draw(parts, guidance, rows=slice(None), scheduler="ddim", scale=1.0):
    network, told = parts
    told = {name: text.rows(rows) for name, text in told.items()}
    stepper = build_stepper(Sampler(scheduler=scheduler, steps=STEPS), network.schedule.config)
    return sample({"main": network}, told, guidance, stepper, STEPS, list(range(4))[rows])[0]


def moment(k: int, sigma: float = 2.0) -> Moment:
    return Moment(k, STEPS, 900 - k, sigma, sigma / 2)


def walked(guidance, steps=STEPS, sigma=2.0, seed=0):
    """What a walk makes of random predictions, step by step: the predictions as noise, and the guided one."""
    walk, generator = Walk(guidance), torch.Generator().manual_seed(seed)
    for k in range(steps):
        at = moment(k, sigma)
        predicted = {
            p: torch.randn(3, 4, 6, 5, dtype=torch.float64, generator=generator)
            for p in dict.fromkeys((MAIN, EMPTY, NEGATIVE, *walk.predictions(at)))
        }
        yield at, predicted, walk.combine({p: predicted[p] for p in walk.predictions(at)}, at)


def both(scale: float, negative: float, post) -> Guidance:
    return Guidance((Term(EMPTY, scale), Term(NEGATIVE, negative)), post)


def norm(x):
    return x.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


# Neutral settings.


@pytest.mark.parametrize("post", CONTRASTING.values(), ids=CONTRASTING)
def test_scales_of_one_are_the_plain_conditional_under_every_contrast(parts, post):
    assert torch.equal(draw(parts, both(1.0, 1.0, post)), draw(parts, Guidance()))
    assert both(1.0, 1.0, post).predictions() == (MAIN,), "and cost no evaluation"


@pytest.mark.parametrize("post", OTHERS.values(), ids=OTHERS)
def test_a_scale_of_one_is_the_plain_conditional_under_every_other(parts, post):
    assert torch.equal(draw(parts, Guidance((Term(EMPTY, 1.0),), post)), draw(parts, Guidance()))


@pytest.mark.parametrize("space", ["output", "x0", "noise", "v"])
@pytest.mark.parametrize("post", [Momentum(name="momentum", push=0), HiGS(name="higs", weight=0)], ids=lambda p: p.name)
def test_a_history_without_a_push_is_the_plain_conditional_bit_for_bit(parts, post, space):
    still = post.model_copy(update={"space": space})
    assert torch.equal(draw(parts, Guidance((), still)), draw(parts, Guidance()))
    assert torch.equal(draw(parts, Guidance((Term(EMPTY, 3.0),), still)), draw(parts, Guidance((Term(EMPTY, 3.0),))))


@pytest.mark.parametrize(
    "post",
    [
        SlidingMode(name="smc", gain=0.0),
        Rescale(name="rescale", phi=0.0, space="x0"),
        Renorm(name="renorm", per="image", cap=100.0),
        APG(name="apg", eta=1.0, momentum=None, norm=None, space="noise"),
    ],
    ids=lambda post: post.name,
)
def test_each_post_process_has_a_setting_that_is_classifier_free_guidance(parts, post):
    cfg = draw(parts, Guidance((Term(EMPTY, 3.0),)))
    # To rounding: a direction goes into the post-process's space and back.
    torch.testing.assert_close(draw(parts, Guidance((Term(EMPTY, 3.0),), post)), cfg, atol=2e-5, rtol=0)


@pytest.mark.parametrize("post", [PERP_NEG, SafeLatent(name="sld", strength=0.0), SEMANTIC], ids=lambda post: post.name)
def test_a_contrast_without_its_negative_is_classifier_free_guidance(parts, post):
    negative = 3.0 if post.name == "sld" else 1.0
    cfg = draw(parts, Guidance((Term(EMPTY, 3.0),)))
    torch.testing.assert_close(draw(parts, both(3.0, negative, post)), cfg, atol=2e-5, rtol=0)


def test_contrastive_guidance_without_a_temperature_is_the_signed_negative():
    for _, d, guided in walked(both(4.0, 1.75, Contrastive(name="ccfg", tau=0.0))):
        direct = d[EMPTY] + 4.0 * (d[MAIN] - d[EMPTY]) - 0.75 * (d[NEGATIVE] - d[EMPTY])
        torch.testing.assert_close(guided, direct)


# Each against its formula, written out.


def test_perp_neg_is_the_paper_s_formula():
    """empty + w (D - b perp), image by image, with w = s and w b = s_negative - 1."""
    w, b = 3.0, 0.5
    for _, d, guided in walked(both(w, 1 + w * b, PERP_NEG)):
        for k in range(3):
            push, n = ((d[p][k] - d[EMPTY][k]).flatten() for p in (MAIN, NEGATIVE))
            perp = n - torch.dot(n, push) / torch.dot(push, push) * push
            assert abs(float(torch.dot(perp, push))) < 1e-9
            direct = d[EMPTY][k].flatten() + w * (push - b * perp)
            torch.testing.assert_close(guided[k].flatten(), direct)


def test_perp_neg_is_the_same_in_every_space():
    d = {p: torch.randn(2, 3, 4, 4, dtype=torch.float64) for p in (MAIN, EMPTY, NEGATIVE)}
    x, at, guidance = torch.randn(2, 3, 4, 4, dtype=torch.float64), moment(1, 1.3), both(3.0, 1.8, PERP_NEG)
    path = VARIANCE_PRESERVING
    found = Walk(guidance).combine(d, at)
    as_x0 = {p: path.to_x0(value, "epsilon", x, at.sigma) for p, value in d.items()}
    torch.testing.assert_close(
        path.from_x0(Walk(guidance).combine(as_x0, at), "epsilon", x, at.sigma), found, rtol=1e-9, atol=1e-9
    )


def test_perp_neg_of_a_prompt_that_is_the_empty_text_is_the_negative_itself():
    main, n = torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
    guided = Walk(both(3.0, 1.5, PERP_NEG)).combine({MAIN: main, EMPTY: main, NEGATIVE: n}, moment(0))
    assert torch.equal(guided, -0.5 * n)


def test_contrastive_guidance_is_the_authors_formula():
    tau, gamma = 0.01, 2.5
    for _, d, guided in walked(both(gamma, 1 + gamma, Contrastive(name="ccfg", tau=tau))):
        push, n = d[MAIN] - d[EMPTY], d[NEGATIVE] - d[EMPTY]
        near, far = (torch.exp(-tau * norm(x) ** 2) for x in (push, n))
        direct = d[EMPTY] + gamma * 2 / (1 + near) * push - gamma * 2 * far / (1 + far) * n
        torch.testing.assert_close(guided, direct)


def test_safe_latent_diffusion_is_that_of_diffusers():
    scale = 3.0
    settings = {
        "sld_guidance_scale": 2.0, "sld_threshold": 0.3, "sld_warmup_steps": 1,
        "sld_momentum_scale": 0.3, "sld_mom_beta": 0.4,
    }  # fmt: skip
    momentum = None
    for at, d, guided in walked(both(scale, 1 + scale, SLD)):
        outputs = [d[MAIN], d[EMPTY], d[NEGATIVE]]
        theirs, momentum = StableDiffusionPipelineSafe.perform_safety_guidance(
            SimpleNamespace(), True, momentum, d[MAIN] - d[EMPTY], outputs, at.index, **settings
        )
        torch.testing.assert_close(guided, d[EMPTY] + scale * theirs)


def test_the_defaults_of_safe_latent_diffusion_are_its_medium_configuration():
    own, theirs = SafeLatent(name="sld"), SafetyConfig.MEDIUM
    assert own.warmup * 50 == theirs["sld_warmup_steps"]
    assert (own.strength, own.threshold) == (theirs["sld_guidance_scale"], theirs["sld_threshold"])
    assert (own.momentum, own.keep) == (theirs["sld_momentum_scale"], theirs["sld_mom_beta"])


def test_semantic_guidance_is_the_loop_of_diffusers_pipeline():
    """One concept in the reversed direction, channel by channel, with numpy's quantile."""
    scale, edit, warmup, threshold, momentum_scale, beta = 3.0, 5.0, 1, 0.9, 0.1, 0.4
    momentum = torch.zeros(3, 4, 6, 5, dtype=torch.float64)
    for at, d, guided in walked(both(scale, 1 + edit, SEMANTIC)):
        concept = -edit * (d[NEGATIVE] - d[EMPTY])
        for image in concept:
            for channel in image:
                least = sorted(channel.abs().flatten().tolist())
                position = threshold * (len(least) - 1)
                low = int(position)
                quantile = least[low] + (position - low) * (least[low + 1] - least[low])
                channel[channel.abs() < quantile] = 0
        concept = concept + momentum_scale * momentum
        momentum = beta * momentum + (1 - beta) * concept
        direct = d[EMPTY] + scale * (d[MAIN] - d[EMPTY]) + (concept if at.index >= warmup else 0)
        torch.testing.assert_close(guided, direct)


def by_positions(x):
    return x.flatten(2).mT


def by_patches(x):
    whole = x[..., : x.shape[2] // 2 * 2, : x.shape[3] // 2 * 2].contiguous()
    return QwenImagePipeline._pack_latents(whole, *whole.shape)


@pytest.mark.parametrize(("per", "sequence"), [("token", by_positions), ("patch", by_patches)])
def test_the_norm_per_token_or_patch_is_that_of_qwen_image_on_a_sequence_of_them(per, sequence):
    """Their predictions are [B, positions, channels], and the norm is over the last axis."""
    for _, d, guided in walked(Guidance((Term(EMPTY, 4.0),), RENORMS[f"norm per {per}"])):
        packed = {p: sequence(value) for p, value in d.items()}
        combined = packed[EMPTY] + 4.0 * (packed[MAIN] - packed[EMPTY])
        sizes = (torch.norm(x, dim=-1, keepdim=True) for x in (packed[MAIN], combined))
        theirs = combined * (next(sizes) / next(sizes))
        torch.testing.assert_close(sequence(guided), theirs)


def test_patches_at_an_odd_edge_are_made_of_the_positions_that_are_there():
    main, empty = torch.randn(2, 3, 5, 3), torch.randn(2, 3, 5, 3)
    guidance = Guidance((Term(EMPTY, 3.0),), RENORMS["norm per patch"])
    guided = Walk(guidance).combine({MAIN: main, EMPTY: empty}, moment(0))
    for rows in (slice(0, 2), slice(2, 4), slice(4, 5)):
        for columns in (slice(0, 2), slice(2, 3)):
            torch.testing.assert_close(norm(guided[..., rows, columns]), norm(main[..., rows, columns]))


def test_the_norm_per_row_is_that_of_lumina_2():
    for _, d, guided in walked(Guidance((Term(EMPTY, 4.0),), RENORMS["norm per row"])):
        combined = d[EMPTY] + 4.0 * (d[MAIN] - d[EMPTY])
        sizes = (torch.norm(x, dim=-1, keepdim=True) for x in (d[MAIN], combined))
        torch.testing.assert_close(guided, combined * (next(sizes) / next(sizes)))


def test_the_capped_norm_is_that_of_z_image():
    scale, cap = 1.4, 1.25
    capped = 0
    for _, d, guided in walked(Guidance((Term(EMPTY, 1 + scale),), Renorm(name="renorm", per="image", cap=cap)), 12):
        for k in range(3):
            combined = d[MAIN][k] + scale * (d[MAIN][k] - d[EMPTY][k])
            most = torch.linalg.vector_norm(d[MAIN][k]) * cap
            size = torch.linalg.vector_norm(combined)
            capped += int(size > most)
            torch.testing.assert_close(guided[k], combined * (most / size) if size > most else combined)
    assert capped


@pytest.mark.parametrize("per", ["image", "token", "patch"])
def test_a_prediction_below_its_cap_is_left_as_it_is_bit_for_bit(per):
    main, empty = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    terms = (Term(EMPTY, 1.01),)
    free, capped = (
        Walk(Guidance(terms, post)).combine({MAIN: main, EMPTY: empty}, moment(0))
        for post in ((), Renorm(name="renorm", per=per, cap=50.0))
    )
    assert torch.equal(free, capped)


def test_a_prediction_of_zeros_has_no_norm_to_change():
    main = torch.zeros(1, 2, 2, 2)
    for post in RENORMS.values():
        guided = Walk(Guidance((Term(EMPTY, 2.0),), post)).combine({MAIN: main, EMPTY: main}, moment(0))
        assert torch.equal(guided, main)


def test_sliding_mode_is_the_authors_recursion():
    scale, surface, gain, before = 3.0, 5.0, 0.2, None
    for _, d, guided in walked(Guidance((Term(EMPTY, scale),), SlidingMode(name="smc", surface=surface, gain=gain))):
        e = d[MAIN] - d[EMPTY]
        before = e if before is None else before
        e = e - gain * torch.sign((e - before) + surface * before)
        before = e
        torch.testing.assert_close(guided, d[EMPTY] + scale * e)


def test_momentum_is_the_paper_s_recursion():
    alpha, beta, average = 0.5, 0.6, None
    for _, d, guided in walked(Guidance((Term(EMPTY, 2.0),), Momentum(name="momentum", push=alpha, keep=beta))):
        v = d[EMPTY] + 2.0 * (d[MAIN] - d[EMPTY])
        average = v if average is None else average
        torch.testing.assert_close(guided, v + alpha * (v - average))
        average = (1 - beta) * v + beta * average


@pytest.mark.parametrize("sigma", [0.3, 2.0, 50.0])
def test_higs_is_the_paper_s_algorithm(sigma):
    """With scipy's cosine transform; outside (low, high] only the history is kept."""
    post = HiGS(name="higs", weight=1.5, eta=0.25, recent=0.5, cutoff=0.3, low=0.4, high=0.9)
    history, t, acting = 0.0, sigma / (1 + sigma), 0
    weight = 1.5 * math.sqrt((t - 0.4) / 0.5) if 0.4 < t <= 0.9 else 0.0
    for at, d, guided in walked(Guidance((), post), sigma=sigma):
        main, direct = d[MAIN], d[MAIN].clone()
        if at.index and weight:
            acting += 1
            difference = main - history
            along = (difference * main).sum((1, 2, 3), keepdim=True) / norm(main) ** 2 * main
            spectrum = dctn((difference - along + 0.25 * along).numpy(), axes=(2, 3), norm="ortho")
            down, across = torch.arange(6)[:, None] / 6, torch.arange(5)[None] / 5
            kept = 1 / (1 + torch.exp(-50 * ((down**2 + across**2).sqrt() - 0.3)))
            direct += weight * torch.from_numpy(idctn(spectrum * kept.numpy(), axes=(2, 3), norm="ortho"))
        torch.testing.assert_close(guided, direct, rtol=1e-6, atol=1e-6)
        history = 0.5 * main + 0.5 * history
    assert acting == (STEPS - 1 if sigma == 2.0 else 0)


def test_a_high_pass_takes_the_mean_and_leaves_fine_detail():
    flat = torch.full((1, 2, 16, 16), 3.0)
    fine = torch.cos(torch.pi / 16 * (torch.arange(16) + 0.5) * 12).expand(1, 1, 16, 16)  # one wave of the transform
    assert high_pass(flat, 0.3).abs().max() < 1e-4
    torch.testing.assert_close(high_pass(fine, 0.3), fine, atol=2e-3, rtol=0)


# Spaces.


@pytest.mark.parametrize("path", [VARIANCE_PRESERVING, RECTIFIED_FLOW], ids=lambda path: path.name)
@pytest.mark.parametrize(
    "post", [*OTHERS.values(), *CONTRASTING.values(), *HISTORY.values()], ids=lambda post: post.name
)
def test_in_a_space_of_its_own_a_post_process_is_the_same_for_every_prediction_type(path, post):
    """The same predictions as x0, noise and velocity: the guided ones are the same too."""
    if post.space == "output":
        post = post.model_copy(update={} if post.name == "perp_neg" else {"space": "x0"})
    terms = (Term(EMPTY, 2.5), *((Term(NEGATIVE, 1.5),) if post.contrasts else ()))
    walks = {kind: Walk(Guidance(terms, post)) for kind in path.prediction_types}
    generator = torch.Generator().manual_seed(3)
    for k in range(3):
        at = moment(k, 1.7 - 0.5 * k)
        x, *x0 = torch.randn(4, 2, 3, 6, 6, dtype=torch.float64, generator=generator)
        found = {}
        for kind, walk in walks.items():
            said = {
                p: path.from_x0(value, kind, x, at.sigma)
                for p, value in zip((MAIN, EMPTY, NEGATIVE), x0, strict=True)
                if p in walk.predictions(at)
            }
            guided = walk.combine(said, at, OutputSpaces(path, kind, x, at.sigma))
            found[kind] = path.to_x0(guided, kind, x, at.sigma)
        for guided in found.values():
            torch.testing.assert_close(guided, found["sample"], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("path", [VARIANCE_PRESERVING, RECTIFIED_FLOW], ids=lambda path: path.name)
def test_spaces_agree_with_the_noise_path(path):
    x, x0, sigma = torch.randn(1, 2, 3, 3, dtype=torch.float64), torch.randn(1, 2, 3, 3, dtype=torch.float64), 0.8
    a, b = path.signal_and_noise(sigma)
    noise = (x - a * x0) / b
    velocity = a * noise - b * x0 if path is VARIANCE_PRESERVING else noise - x0
    for kind in path.prediction_types:
        spaces, output = OutputSpaces(path, kind, x, sigma), path.from_x0(x0, kind, x, sigma)
        for space, value in {"x0": x0, "noise": noise, "v": velocity}.items():
            torch.testing.assert_close(spaces.seen(output, space), value)
            step = (spaces.seen(output + 0.1, space) - value) / 0.1
            torch.testing.assert_close(step, torch.full_like(step, spaces.per_output(space)))
        assert spaces.seen(output, "output") is output


# Order, windows and batches.


def test_post_processes_act_in_the_order_written():
    cap, momentum = Renorm(name="renorm", per="image", cap=1.0), Momentum(name="momentum", push=2.0)
    orders = ([guided for *_, guided in walked(Guidance((Term(EMPTY, 3.0),), order))] for order in
              ((cap, momentum), (momentum, cap)))  # fmt: skip
    first, second = orders
    assert torch.equal(first[0], second[0]), "momentum does nothing at the first step"
    assert (norm(second[1]) < norm(first[1])).all(), "the cap holds where it comes last"


def test_a_list_is_its_members_one_after_the_other():
    cap = Renorm(name="renorm", per="image", cap=1.0)
    pairs = zip(walked(both(3.0, 1.8, (PERP_NEG, cap))), walked(both(3.0, 1.8, PERP_NEG)), strict=True)
    for (_, d, guided), (_, _, alone) in pairs:
        torch.testing.assert_close(guided, alone * (norm(d[MAIN]) / norm(alone)).clamp(max=1))


@pytest.mark.parametrize("post", CONTRASTING.values(), ids=CONTRASTING)
def test_a_contrast_evaluates_the_empty_prompt_where_its_negative_acts_alone(post):
    late = Window(name="window", start=0.5)
    walk = Walk(Guidance((Term(EMPTY, 1.0), Term(NEGATIVE, 2.0, late)), post))
    assert [walk.predictions(moment(k)) for k in (0, 3)] == [(MAIN,), (MAIN, EMPTY, NEGATIVE)]


@pytest.mark.parametrize("post", [*CONTRASTING.values(), *OTHERS.values(), *HISTORY.values()], ids=lambda p: p.name)
def test_an_image_does_not_depend_on_its_batch_under_any_post_process(post):
    terms = (Term(EMPTY, 2.5), *((Term(NEGATIVE, 1.5),) if post.contrasts else ()))
    together = [guided for *_, guided in walked(Guidance(terms, post))]
    for row in range(3):
        walk = Walk(Guidance(terms, post))
        for whole, (at, d, _) in zip(together, walked(Guidance(terms, post)), strict=True):
            alone = walk.combine({p: d[p][row : row + 1] for p in walk.predictions(at)}, at)
            torch.testing.assert_close(alone[0], whole[row], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("post", HISTORY.values(), ids=HISTORY)
def test_a_history_needs_no_reference_and_costs_no_evaluation(parts, post):
    guidance = guidance_of(Arm(method="unguided", scale=1, post=post))
    assert guidance.predictions() == (MAIN,)
    plain, pushed = draw(parts, Guidance()), draw(parts, guidance)
    assert (plain - pushed).abs().max() > 1e-4
    torch.testing.assert_close(draw(parts, guidance, slice(2, 3))[0], pushed[2], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", [*CONTRASTING, *OTHERS])
def test_every_post_process_changes_images(parts, name):
    post = {**CONTRASTING, **OTHERS}[name]
    terms = (Term(EMPTY, 3.0), Term(NEGATIVE, 2.0)) if name in CONTRASTING else (Term(EMPTY, 3.0),)
    assert (draw(parts, Guidance(terms)) - draw(parts, Guidance(terms, post))).abs().max() > 1e-5


# What is refused when a study is composed.

MIX = {"method": "mix", "terms": [{"reference": "empty"}, {"reference": "negative"}], "negative_prompt": "bad"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"post": {"name": "perp_neg"}}, "post perp_neg sets negatives against the empty prompt; the terms must be"),
        ({**MIX, "terms": [{"reference": "negative"}], "post": {"name": "sld"}}, "post sld sets negatives against"),
        (
            {"method": "mix", "terms": [{"reference": "empty"}, {"reference": "guide"}], "post": {"name": "ccfg"}},
            "post ccfg takes texts of the main network for negatives, not guide",
        ),
        (
            {**MIX, "post": [{"name": "perp_neg"}, {"name": "sega"}]},
            "perp_neg and sega both act on the directions; keep one",
        ),
        ({"post": [{"name": "smc"}, {"name": "apg"}]}, "smc and apg both act on the directions; keep one"),
        ({"post": [{"name": "apg"}, {"name": "apg"}]}, "post lists apg twice; keep one"),
        (
            {"post": [{"name": "rescale", "phi": 0.5}, {"name": "apg"}]},
            "post apg acts on the directions before they are summed; list it before rescale",
        ),
        (
            {"post": [{"name": "guider", "guider": "ClassifierFreeGuidance"}, {"name": "rescale", "phi": 0.5}]},
            "post guider combines the predictions by itself; take the others out",
        ),
        ({"post": {"name": "renorm", "per": "column"}}, "'patch' or 'row'"),
        ({"post": {"name": "renorm", "per": "image", "cap": 0}}, "greater than 0"),
        ({**MIX, "post": {"name": "perp_neg", "space": "x0"}}, "'output'"),
        ({"post": {"name": "smc", "space": "latent"}}, "'output', 'x0', 'noise' or 'v'"),
        ({"post": {"name": "higs", "low": 0.5, "high": 0.5}}, r"low \(0.5\) must be below high"),
        ({"method": "unguided", "scale": 1, "post": {"name": "smc"}}, "no terms for a schedule, post or step"),
        ({"post": [3]}, "valid dictionary"),
    ],
)
def test_what_makes_no_sense_is_refused(settings, said):
    with pytest.raises(ValidationError, match=said):
        Arm.model_validate({"method": "cfg", "scale": 2.0, **settings})


def test_one_post_process_is_a_list_of_one():
    one, listed = (
        Arm.model_validate({"method": "cfg", "scale": 2.0, "post": post})
        for post in ({"name": "rescale", "phi": 0.5}, [{"name": "rescale", "phi": 0.5}])
    )
    assert one == listed
    assert Guidance(post=one.post[0]).posts == guidance_of(one).posts


def test_autoguidance_takes_a_renorm_too():
    main, guide = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    guidance = Guidance((Term(GUIDE, 3.0),), RENORMS["norm per image"])
    guided = Walk(guidance).combine({MAIN: main, GUIDE: guide}, moment(0))
    torch.testing.assert_close(norm(guided), norm(main))


BUILT_IN = (Renorm(name="renorm", per="patch"),)


@pytest.mark.parametrize(
    ("own", "acting"),
    [
        ({}, ["renorm patch"]),
        ({"built_in_post": False}, []),
        ({"post": {"name": "rescale", "phi": 0.5}}, ["rescale", "renorm patch"]),
        ({"post": {"name": "rescale", "phi": 0.5}, "built_in_post": False}, ["rescale"]),
        ({"post": {"name": "renorm", "per": "image"}}, ["renorm image"]),
        ({"post": {"name": "guider", "guider": "ClassifierFreeGuidance"}}, ["guider"]),
    ],
)
def test_what_a_pipeline_has_built_in_acts_after_the_arms_own_and_can_be_left_out(own, acting):
    guidance = guidance_of(Arm.model_validate({"method": "cfg", "scale": 2.0, **own}), BUILT_IN)
    assert [" ".join([post.name, *([post.per] if post.name == "renorm" else [])]) for post in guidance.posts] == acting


def test_what_a_pipeline_has_built_in_leaves_the_plain_conditional_bit_for_bit():
    main = torch.randn(1, 3, 4, 4)
    for arm in (Arm(method="unguided", scale=1), Arm(method="cfg", scale=1)):
        assert torch.equal(Walk(guidance_of(arm, BUILT_IN)).combine({MAIN: main}, moment(0)), main)
