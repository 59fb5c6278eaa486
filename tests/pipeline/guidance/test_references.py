"""Laws of free references: network x text x damage x time, on small random networks."""

from collections import Counter
from pathlib import Path

import pytest
import torch
import yaml
from pydantic import ValidationError
from repository_copy import ROOT

from pipeline.generation.arm_guidance import guidance_of
from pipeline.guidance.algebra import EMPTY, GUIDE, MAIN, NEGATIVE, Guidance, Perturbation, Prediction, Term
from pipeline.guidance.chance import Chance
from pipeline.guidance.references import RANDOM_KINDS, ConditionNoise
from pipeline.networks.denoisers.unet import load_network
from pipeline.networks.perturbation import perturbed, shuffled
from pipeline.networks.text.conditioning import Conditioning, degraded, noised
from pipeline.networks.text.encoded_texts import EncodedTexts
from pipeline.networks.text.text_encoder import load_text_encoder
from pipeline.sampling.sampler import sample
from pipeline.sampling.steppers import build_stepper
from pipeline.study.arm import Arm
from pipeline.study.sampler import Sampler

PROMPTS = ["1person, solo, blue hair", "object, stones, white background", "scenery, hills, sun", "pattern, waves"]
SEEDS = [0, 1, 2, 3]
CPU = torch.device("cpu")
TEXTS = {
    "prompt": PROMPTS,
    "empty": [""] * 4,
    "negative": ["worst quality"] * 4,
    "unrelated": PROMPTS[1:] + PROMPTS[:1],
}


@pytest.fixture(scope="module")
def parts(networks_folder: Path):
    networks = {name: load_network(networks_folder / name, CPU) for name in ("main", "guide")}
    return networks, load_text_encoder(networks_folder / "main", CPU)


def draw(parts, guidance, texts=TEXTS, rows=slice(None), networks=None, scheduler="ddim"):
    own, encoder = parts
    networks = networks or own
    told = {name: encoder.encode(values).rows(rows) for name, values in texts.items()}
    stepper = build_stepper(Sampler(scheduler=scheduler, steps=4), networks["main"].schedule.config)
    return sample(networks, told, guidance, stepper, 4, SEEDS[rows])


def arm(**settings) -> Arm:
    return Arm.model_validate({"method": "mix", "scale": 2.0, **settings})


def same(a, b):
    torch.testing.assert_close(a[0], b[0], atol=1e-5, rtol=0)


EVERY_KIND = {
    "guide under the negative": {"network": "guide", "text": "negative"},
    "guide under the empty text": {"network": "guide", "text": "empty"},
    "damaged guide": {"network": "guide", "perturb": {"kind": "pag"}},
    "later": {"time": 50},
    "earlier, unrelated text": {"time": -50, "text": "unrelated"},
    "noised": {"noise": {"low": 0, "high": 0.5}},
    **{kind: {"perturb": {"kind": kind, "share": 0.5}} for kind in RANDOM_KINDS},
}


@pytest.mark.parametrize("name", EVERY_KIND)
def test_every_reference_is_neutral_at_scale_one_and_acts_beyond(parts, name):
    own = {"references": {"own": EVERY_KIND[name]}, "terms": [{"reference": "own"}], "negative_prompt": "worst quality"}
    if EVERY_KIND[name].get("text") != "negative":
        del own["negative_prompt"]
    plain, _ = draw(parts, Guidance())
    neutral, trace = draw(parts, guidance_of(arm(**own, scale=1.0)))
    assert torch.equal(plain, neutral)
    assert all(step.references == () for step in trace)  # and costs no evaluation
    acting, trace = draw(parts, guidance_of(arm(**own, scale=3.0)))
    assert (plain - acting).abs().max() > 1e-4
    assert [step.references for step in trace] == [("own",)] * 4


def test_two_negatives_of_one_text_share_what_one_has_alone(parts):
    two = arm(
        texts={"first": "worst quality", "second": "worst quality"},
        terms=[{"reference": "first", "share": 0.3}, {"reference": "second", "share": 0.7}],
    )
    one = Guidance((Term(NEGATIVE, 2.0),))
    texts = {**TEXTS, "first": TEXTS["negative"], "second": TEXTS["negative"]}
    same(draw(parts, guidance_of(two), texts), draw(parts, one))


def test_each_negative_has_its_own_scale_and_window(parts):
    own = guidance_of(
        arm(
            texts={"first": "worst quality", "second": "lowres"},
            terms=[
                {"reference": "first", "scale": 1.5, "schedule": {"name": "window", "stop": 0.5}},
                {"reference": "second", "share": 0.5},
            ],
        )
    )
    assert [term.scale for term in own.terms] == [1.5, 1.5]
    _, trace = draw(parts, own, {**TEXTS, "first": TEXTS["negative"], "second": ["lowres"] * 4})
    assert [step.references for step in trace] == [("first", "second")] * 2 + [("second",)] * 2


def test_a_share_of_nothing_costs_nothing(parts):
    own = guidance_of(arm(terms=[{"reference": "empty"}, {"reference": "guide", "share": 0.0}]))
    _, trace = draw(parts, own)
    assert [step.references for step in trace] == [("empty",)] * 4


def predictions(**named):
    return {p: torch.randn(2, 3, 4, 4, dtype=torch.float64) for p in named.values()}


def combined(own: Arm):
    """The guided prediction of random ones, and these by name."""
    from pipeline.guidance.algebra import Walk
    from pipeline.guidance.scale_schedules import Moment

    walk, at = Walk(guidance_of(own)), Moment(0, 4, 999, 14.6, 3.0)
    generator = torch.Generator().manual_seed(0)
    predicted = {p: torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=generator) for p in walk.predictions(at)}
    return walk.combine(predicted, at), {p.name: x for p, x in predicted.items()}


def test_composable_not_is_a_share_below_zero_of_the_empty_text():
    """arXiv 2206.01714, equation 11 with one concept: d_u + w (d_c - d_n)."""
    w = 2.5
    own = arm(
        scale=w,
        negative_prompt="worst quality",
        terms=[{"reference": "negative", "scale": 2, "share": 1}, {"reference": "empty", "scale": 0}],
    )
    guided, d = combined(own)
    torch.testing.assert_close(guided, d["empty"] + w * (d["main"] - d["negative"]))


def test_a_signed_negative_keeps_the_prompt_at_its_scale():
    """d_u + w D - w_n (d_n - d_u), with w = 4 and w_n = scale - 1."""
    w, w_n = 4.0, 0.75
    own = arm(
        scale=1 + w_n,
        negative_prompt="worst quality",
        terms=[{"reference": "negative"}, {"reference": "empty", "scale": w, "share": -1}],
    )
    guided, d = combined(own)
    direct = d["empty"] + w * (d["main"] - d["empty"]) - w_n * (d["negative"] - d["empty"])
    torch.testing.assert_close(guided, direct)


def test_the_main_network_as_its_own_guide_is_the_method_of_one_network(parts):
    networks, _ = parts
    twin = {"main": networks["main"], "guide": networks["main"]}
    own = arm(
        references={"guide_negative": {"network": "guide", "text": "negative"}},
        terms=[{"reference": "guide_negative"}],
        negative_prompt="worst quality",
    )
    same(draw(parts, guidance_of(own), networks=twin), draw(parts, Guidance((Term(NEGATIVE, 2.0),))))


def test_references_of_one_way_go_through_their_network_in_one_call(parts):
    calls: Counter[str] = Counter()
    networks, _ = parts
    handles = [n.unet.register_forward_hook(lambda *_, name=name: calls.update([name])) for name, n in networks.items()]
    own = arm(
        references={
            "guide_negative": {"network": "guide", "text": "negative"},
            "later": {"time": 20},
            "later_empty": {"time": 20, "text": "empty"},
        },
        negative_prompt="worst quality",
        terms=[{"reference": name} for name in ("empty", "guide", "guide_negative", "later", "later_empty")],
    )
    draw(parts, guidance_of(own))
    for handle in handles:
        handle.remove()
    assert calls == {"main": 8, "guide": 4}  # main: at its own time, and at the shifted one


@pytest.mark.parametrize("kind", RANDOM_KINDS)
def test_random_damage_repeats_by_seed_and_does_not_depend_on_the_batch(parts, kind):
    reference = Prediction("own", "main", "prompt", Perturbation(kind, ("mid_block", "up_blocks"), share=0.5))
    guidance = Guidance((Term(reference, 3.0),))
    whole, _ = draw(parts, guidance)
    assert torch.equal(whole, draw(parts, guidance)[0])
    alone = [draw(parts, guidance, rows=slice(k, k + 1))[0] for k in range(4)]
    torch.testing.assert_close(whole, torch.cat(alone), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", RANDOM_KINDS)
def test_random_damage_is_another_at_every_step_and_heals(parts, kind):
    network, told = parts[0]["main"], parts[1].encode(PROMPTS)
    x = torch.randn(4, *network.sample_shape, generator=torch.Generator().manual_seed(0))
    damage = Perturbation(kind, ("mid_block",), share=0.5)
    plain = network(x, 1.0, told)
    first, again, later = (network(x, 1.0, told, 1, damage, None, Chance((0, 1, 2, 3), step)) for step in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, later)
    assert not torch.equal(first, plain)
    assert torch.equal(network(x, 1.0, told), plain)


@pytest.mark.parametrize("kind", RANDOM_KINDS)
def test_random_damage_is_the_same_for_all_texts_of_an_image(parts, kind):
    """One call with two texts equals two calls: what is left out is the image's, not the row's."""
    network, encoder = parts[0]["main"], parts[1]
    x = torch.randn(4, *network.sample_shape, generator=torch.Generator().manual_seed(0))
    damage, chance = Perturbation(kind, ("mid_block",), share=0.5), Chance((0, 1, 2, 3), 0)
    texts = [encoder.encode(values) for values in (PROMPTS, [""] * 4)]
    from pipeline.networks.text.conditioning import joined

    together = network(x, 1.0, joined(texts), 2, damage, None, chance)
    apart = torch.cat([network(x, 1.0, own, 1, damage, None, chance) for own in texts])
    torch.testing.assert_close(together, apart, atol=1e-4, rtol=0)


def test_leaving_out_all_blocks_by_chance_is_skipping_them(parts):
    network, told = parts[0]["main"], parts[1].encode(PROMPTS)
    x = torch.randn(4, *network.sample_shape)
    by_chance = network(
        x, 1.0, told, 1, Perturbation("random_layers", ("mid_block",), share=1), None, Chance((1,) * 4, 0)
    )
    assert torch.equal(by_chance, network(x, 1.0, told, 1, Perturbation("skip_layers", ("mid_block",))))


def test_damage_by_chance_heals_after_an_exception(parts):
    unet = parts[0]["main"].unet
    before = [dict(module.__dict__).keys() for module in unet.modules()]

    def fail():
        with perturbed(unet, Perturbation("dropout", ("mid_block",), share=0.5), (16, 16), Chance((0,), 0)):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [dict(module.__dict__).keys() for module in unet.modules()] == before


def test_a_share_of_the_positions_is_shuffled_among_itself():
    order = shuffled(Chance((0, 1), 0).uniform("layer", 2, 1000), 0.3)
    assert order.sort(1).values.equal(torch.arange(1000).repeat(2, 1))  # an order of all positions
    moved = (order != torch.arange(1000)).float().mean(1)
    assert ((moved > 0.25) & (moved < 0.35)).all()
    assert shuffled(Chance((0,), 0).uniform("layer", 2, 10), 1e-9).equal(torch.arange(10)[None])


def test_a_shifted_time_is_told_the_network_and_nothing_else(parts):
    """One evaluation by hand: the same sample, at the shifted timestep of its training."""
    networks, encoder = parts
    main, told = networks["main"], encoder.encode(PROMPTS)
    seen = {}
    shift = Prediction("later", "main", "prompt", time=30)
    _, trace = draw(parts, Guidance(probes=(shift,)))
    handle = main.unet.register_forward_pre_hook(
        lambda _, args, more: seen.update(step=float(args[1])), with_kwargs=True
    )
    draw(parts, Guidance(probes=(shift,)))
    handle.remove()
    # The last call of the last step is the probe's.
    assert seen["step"] == pytest.approx(trace[-1].timestep + 0.03 * main.timesteps)
    assert told is not None


def test_a_time_shift_stays_inside_the_training(parts):
    network = parts[0]["main"]
    told = []
    handle = network.unet.register_forward_pre_hook(lambda _, args: told.append(float(args[1])))
    draw(parts, Guidance((Term(Prediction("later", "main", "prompt", time=1000), 2.0),)))
    draw(parts, Guidance((Term(Prediction("earlier", "main", "prompt", time=-1000), 2.0),)))
    handle.remove()
    assert max(told) == network.timesteps
    assert min(told) == 0


def test_noise_on_the_condition_follows_the_paper():
    """CADS, arXiv 2310.17347, equations 4 and 5: half way between low and high, by hand."""
    told = Conditioning({"tokens": torch.randn(2, 5, 8) * 3 + 1, "time_ids": torch.ones(2, 6)})
    noise, chance = ConditionNoise(scale=0.4, low=0.2, high=0.8, rescale=0.0), Chance((7, 8), 3)
    n = chance.normal("noise of tokens", 5, 8)
    by_hand = 0.5**0.5 * told["tokens"] + 0.4 * 0.5**0.5 * n
    torch.testing.assert_close(noised(told, noise, 0.5, chance)["tokens"], by_hand)
    assert noised(told, noise, 0.5, chance)["time_ids"] is told["time_ids"]
    assert noised(told, noise, 0.2, chance) is told
    torch.testing.assert_close(noised(told, noise, 0.9, chance)["tokens"], 0.4 * n)
    again = noised(told, ConditionNoise(scale=0.4, low=0.2, high=0.8), 0.5, chance)["tokens"]
    for statistic in (torch.mean, torch.std):
        torch.testing.assert_close(statistic(again, (1, 2)), statistic(told["tokens"], (1, 2)))


def test_noise_on_the_prompt_changes_the_image_and_without_it_nothing(parts):
    plain, _ = draw(parts, Guidance())
    none = guidance_of(Arm(method="unguided", scale=1, noise={"scale": 0.0}))
    some = guidance_of(Arm(method="unguided", scale=1, noise={"low": 0.0, "high": 0.5}))
    assert torch.equal(draw(parts, none)[0], plain)
    assert (draw(parts, some)[0] - plain).abs().max() > 1e-4


def test_degraded_words_are_the_empty_text_s_and_marks_stay(parts):
    encoder = EncodedTexts(parts[1])
    texts = {"prompt": ["1person, solo", "waves"], "empty": ["", ""]}
    told = encoder.encode_together(texts)
    content = encoder.content(texts["prompt"], told["prompt"]["tokens"].shape[1])
    assert content.sum(1).tolist() == [len(parts[1].cut(text)[0][0]) for text in texts["prompt"]]
    assert not content[:, 0].any()
    worse = degraded(told["prompt"], told["empty"], content, 1.0, Chance((0, 1), 0))["tokens"]
    assert torch.equal(worse[content], told["empty"]["tokens"][content])
    assert torch.equal(worse[~content], told["prompt"]["tokens"][~content])
    some = degraded(told["prompt"], told["empty"], content, 0.5, Chance((0, 1), 0))["tokens"]
    assert not torch.equal(some, worse)


def test_random_numbers_are_each_image_s_own():
    both = Chance((3, 4), 2).normal("a", 5)
    assert torch.equal(both[1:], Chance((4,), 2).normal("a", 5))
    others = [Chance((3, 4), 1).normal("a", 5), Chance((3, 4), 2).normal("b", 5), Chance((5, 6), 2).normal("a", 5)]
    assert not any(torch.equal(both, other) for other in others)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_the_effective_scale_of_cfg_is_its_scale_in_every_prediction_type(parts, prediction_type):
    network = parts[0]["main"]
    before = network.schedule.config.prediction_type
    network.schedule.register_to_config(prediction_type=prediction_type)
    try:
        _, trace = draw(parts, Guidance((Term(EMPTY, 2.5),)))
    finally:
        network.schedule.register_to_config(prediction_type=before)
    for step in trace:
        torch.testing.assert_close(step.effective_scale, torch.full((4,), 2.5), atol=1e-3, rtol=0)
        assert (step.elsewhere < 1e-4).all()


def test_the_effective_scale_does_not_depend_on_the_prediction_type():
    """The same x0 predictions, said as noise and as v: the same push."""
    from pipeline.guidance.trace import effective_push
    from pipeline.networks.noise_path import VARIANCE_PRESERVING

    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    x0 = {p: torch.randn(4, 3, 8, 8, dtype=torch.float64) for p in (MAIN, EMPTY, GUIDE)}
    guided = x0[MAIN] + 0.5 * (x0[MAIN] - x0[GUIDE])
    expected = effective_push(guided, x0)
    for kind in ("epsilon", "v_prediction"):
        said = {p: VARIANCE_PRESERVING.from_x0(value, kind, x, 1.7) for p, value in x0.items()}
        found = effective_push(VARIANCE_PRESERVING.from_x0(guided, kind, x, 1.7), said)
        torch.testing.assert_close(found[0], expected[0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found[1], expected[1], atol=1e-5, rtol=1e-5)


def test_the_effective_scale_by_hand():
    """A push of 2 D and of as much across it: scale 2, half of the squared length elsewhere."""
    from pipeline.guidance.trace import effective_push

    empty = torch.zeros(1, 1, 1, 2)
    main, guided = torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[2.0, 2.0]]]])
    scale, elsewhere = effective_push(guided, {MAIN: main, EMPTY: empty})
    assert (float(scale), float(elsewhere)) == (2.0, 0.5)


def test_autoguidance_by_itself_under_the_empty_text_has_its_scale(parts):
    networks, _ = parts
    own = arm(
        references={"guide_empty": {"network": "guide", "text": "empty"}},
        terms=[{"reference": "guide_empty"}],
        probes=["empty"],
        scale=1.75,
    )
    _, trace = draw(parts, guidance_of(own), networks={"main": networks["main"], "guide": networks["main"]})
    for step in trace:
        torch.testing.assert_close(step.effective_scale, torch.full((4,), 1.75), atol=1e-3, rtol=0)


def test_without_the_empty_text_nothing_is_said_of_an_effective_scale(parts):
    _, trace = draw(parts, Guidance((Term(GUIDE, 2.0),)))
    assert all(step.effective_scale.isnan().all() and step.elsewhere.isnan().all() for step in trace)
    _, trace = draw(parts, Guidance((Term(EMPTY, 2.0),)), {**TEXTS, "prompt": [""] * 4})
    assert all(step.effective_scale.isnan().all() for step in trace)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"terms": [{"reference": "hands"}]}, "terms name the reference 'hands', which is unknown"),
        ({"terms": [{"reference": "empty"}], "probes": ["hand"]}, "probes name the reference 'hand', which is unknown"),
        ({"references": {"own": {"text": "hands"}}, "terms": [{"reference": "own"}]}, "references.own.text 'hands'"),
        ({"references": {"own": {}}, "terms": [{"reference": "own"}]}, "is the main prediction itself"),
        ({"references": {"pag": {"time": 3}}, "terms": [{"reference": "pag"}]}, "references.pag would hide"),
        ({"texts": {"prompt": "x"}, "terms": [{"reference": "empty"}]}, "texts.prompt would hide"),
        ({"texts": {"hands": "x"}, "terms": [{"reference": "empty"}]}, "'hands' is not used by any term, probe"),
        ({"texts": {"a": {"text": "x", "preset": "tinybooru"}}, "terms": [{"reference": "a"}]}, "exactly one of text"),
        ({"texts": {"a": {"degraded": 2}}, "terms": [{"reference": "a"}]}, "less than or equal to 1"),
        ({"texts": {"a": {"preset": "none"}}, "terms": [{"reference": "a"}]}, "is unknown; known presets"),
        (
            {"references": {"own": {"perturb": {"kind": "pag", "share": 0.5}}}, "terms": [{"reference": "own"}]},
            "share is for the kinds random_layers",
        ),
        ({"terms": [{"reference": "empty", "share": 1000}]}, "less than or equal to 100"),
        ({"method": "cfg", "texts": {"a": "x"}}, "not used by any term, probe or"),
    ],
)
def test_what_cannot_be_is_refused_when_a_study_is_composed(settings, said):
    with pytest.raises(ValidationError, match=said):
        arm(**settings)


def test_autolora_goes_from_the_base_to_its_lora_each_with_cfg():
    """B + g (L - B), L and B each empty + 2 (prompt - empty) of their network; conf/arm/autolora.yaml."""
    own = Arm.model_validate(yaml.safe_load((ROOT / "conf/arm/autolora.yaml").read_text()))
    guided, d = combined(own)
    lora, base = d["empty"] + 2 * (d["main"] - d["empty"]), d["base_empty"] + 2 * (d["guide"] - d["base_empty"])
    torch.testing.assert_close(guided, base + own.scale * (lora - base))
