"""Laws of guidance in attention space (NAG, VSF, NASA) on small random networks."""

import io
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from accelerate import init_empty_weights
from diffusers import DDPMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from pydantic import ValidationError
from repository_copy import ROOT

from pipeline.cost.evaluation_counts import evaluations, prediction_flops
from pipeline.errors import InputError
from pipeline.generation.arm_generator import ArmGenerator
from pipeline.generation.arm_guidance import guidance_of
from pipeline.generation.shard_generator import ShardGenerator
from pipeline.generation.shard_plan import ShardTask, arm_texts, plan_arm
from pipeline.guidance.algebra import EMPTY, MAIN, NEGATIVE, NOISED, Guidance, Perturbation, Prediction, Term
from pipeline.guidance.attention_space import ATTENTION_SPACE, NAG, NASA, VSF
from pipeline.networks.attention_space import steered
from pipeline.networks.checkpoints import locate
from pipeline.networks.denoisers.unet import DenoisingNetwork, load_network
from pipeline.networks.text.conditioning import Conditioning, joined, told
from pipeline.networks.text.encoded_texts import EncodedTexts
from pipeline.networks.text.text_encoder import load_text_encoder
from pipeline.preflight import check_arms
from pipeline.sampling.sampler import sample
from pipeline.sampling.steppers import build_stepper
from pipeline.storage.places import Places
from pipeline.study.arm import Arm
from pipeline.study.loading import Loading
from pipeline.study.sampler import Sampler

PROMPTS = ["1person, solo, blue hair", "object, stones, white background", "scenery, hills, sun", "pattern, waves"]
SEEDS = [0, 1, 2, 3]
CPU = torch.device("cpu")
TEXTS = {"prompt": PROMPTS, "empty": [""] * 4, "negative": ["worst quality, lowres"] * 4}
ACTING = {
    "nag": NAG(name="nag", scale=5, tau=2.5, alpha=0.25),
    "vsf": VSF(name="vsf", scale=1.5, bias=0.3),
    "nasa": NASA(name="nasa", scale=0.4),
}
NEUTRAL = {"nag": {"scale": 1.0}, "vsf": {"scale": 0.0}, "nasa": {"scale": 0.0}}
methods = pytest.mark.parametrize("how", ACTING.values(), ids=ACTING)


@pytest.fixture(scope="module")
def parts(networks_folder: Path):
    return load_network(networks_folder / "main", CPU), load_text_encoder(networks_folder / "main", CPU)


def draw(parts, guidance, texts=TEXTS, rows=slice(None)):
    network, encoder = parts
    conditioning = {name: encoder.encode(values).rows(rows) for name, values in texts.items()}
    stepper = build_stepper(Sampler(scheduler="ddim", steps=4), network.schedule.config)
    return sample({"main": network}, conditioning, guidance, stepper, 4, SEEDS[rows])


def steering(how) -> Prediction:
    return replace(MAIN, name=how.name, attention=how)


def arm(name="nag", **settings) -> Arm:
    attention = {"name": name, **settings.pop("attention", {})}
    content = {"method": "unguided", "scale": 1.0, "negative_prompt": "worst quality, lowres", **settings}
    return Arm.model_validate({**content, "attention": attention})


def small(conditioning_width=6, heads=2, width=8):
    """A cross-attention, positions of an image [2, 5, 8], and two texts of it [2, 3, 6] and [2, 4, 6]."""
    torch.manual_seed(0)
    attention = Attention(width, conditioning_width, heads=heads, dim_head=width // heads, bias=True).double().eval()
    made = (torch.randn(2, n, w, dtype=torch.float64) for n, w in ((5, width), (3, 6), (4, 6)))
    return attention, *made


def read(attention, x, text):
    """What positions [N, width] read from a text [L, W], head by head and position by position, before projection."""
    queries, keys, values = attention.to_q(x), attention.to_k(text), attention.to_v(text)
    depth = queries.shape[-1] // attention.heads
    out = torch.zeros_like(queries)
    for head in range(attention.heads):
        own = slice(head * depth, (head + 1) * depth)
        for n in range(len(x)):
            weights = [math.exp(float(queries[n, own] @ key[own]) / math.sqrt(depth)) for key in keys]
            out[n, own] = sum(w * v[own] for w, v in zip(weights, values, strict=True)) / sum(weights)
    return out


def nag_by_hand(attention, x, prompt, negative, how):
    plus, minus = read(attention, x, prompt), read(attention, x, negative)
    extrapolated = plus + (how.scale - 1) * (plus - minus)
    rows = []
    for z, own in zip(extrapolated, plus, strict=True):
        ratio = float(z.abs().sum() / own.abs().sum())
        rows.append(how.alpha * z * min(ratio, how.tau) / ratio + (1 - how.alpha) * own)
    return torch.stack(rows)


def nasa_by_hand(attention, x, prompt, negative, how):
    return read(attention, x, prompt) - how.scale * read(attention, x, negative)


def vsf_by_hand(attention, x, prompt, negative, how):
    """Of the weights of both texts, those of the second times exp(-bias), and its values the other way round."""
    queries = attention.to_q(x)
    keys, values = ([to(text) for text in (prompt, negative)] for to in (attention.to_k, attention.to_v))
    depth = queries.shape[-1] // attention.heads
    out = torch.zeros_like(queries)
    for head in range(attention.heads):
        own = slice(head * depth, (head + 1) * depth)
        for n in range(len(x)):
            plus, minus = (
                [math.exp(float(queries[n, own] @ key[own]) / math.sqrt(depth)) for key in of_text] for of_text in keys
            )
            minus = [weight * math.exp(-how.bias) for weight in minus]
            towards = sum(w * v[own] for w, v in zip(plus, values[0], strict=True))
            away = sum(w * v[own] for w, v in zip(minus, values[1], strict=True))
            out[n, own] = (towards - how.scale * away) / (sum(plus) + sum(minus))
    return out


BY_HAND = {"nag": nag_by_hand, "vsf": vsf_by_hand, "nasa": nasa_by_hand}


class OneLayer(UNet2DConditionModel):
    """A network with one attention of which this file knows everything, where `steered` looks for it."""

    def __init__(self, attention):
        torch.nn.Module.__init__(self)
        self.attention = attention

    dtype = torch.float64


def computed(monkeypatch, attention, x, prompt, negative, how, **more):
    block = type("Block", (), {"attn2": attention})()
    monkeypatch.setattr("pipeline.networks.attention_space.transformer_blocks", lambda *_: {"one": block})
    second = Conditioning({"negative_tokens": negative, **more})
    with torch.no_grad(), steered(OneLayer(attention), how, second, CPU):
        return attention(x, encoder_hidden_states=prompt)


@methods
def test_attention_is_what_the_paper_s_equations_say(monkeypatch, how):
    attention, x, prompt, negative = small()
    found = computed(monkeypatch, attention, x, prompt, negative, how)
    with torch.no_grad():
        by_hand = torch.stack(
            [BY_HAND[how.name](attention, *row, how) for row in zip(x, prompt, negative, strict=True)]
        )
        torch.testing.assert_close(found, attention.to_out[0](by_hand))
        assert (found - attention(x, encoder_hidden_states=prompt)).abs().max() > 1e-2


@pytest.mark.parametrize("tau", [1.0, 1.5, 100.0])
def test_nag_is_never_longer_than_tau_allows(monkeypatch, tau):
    """With alpha 1 the L1 norm of every position is min(R, tau) times that of the prompt's attention."""
    attention, x, prompt, negative = small()
    attention.to_out[0] = torch.nn.Identity()
    how = NAG(name="nag", scale=5, tau=tau, alpha=1)
    found = computed(monkeypatch, attention, x, prompt, negative, how).abs().sum(-1)
    with torch.no_grad():
        plain = attention(x, encoder_hidden_states=prompt).abs().sum(-1)
    assert (found <= tau * plain * (1 + 1e-6)).all()
    assert ((found / plain - tau).abs() < 1e-6).any() == (tau < 100)


def test_vsf_does_not_read_the_second_text_s_padding(monkeypatch):
    attention, x, prompt, negative = small()
    how, unpadded = ACTING["vsf"], torch.tensor([[True, True, False, False]] * 2)
    found = computed(monkeypatch, attention, x, prompt, negative, how, negative_unpadded=unpadded)
    torch.testing.assert_close(found, computed(monkeypatch, attention, x, prompt, negative[:, :2], how))


@pytest.mark.parametrize(
    ("how", "within"),
    [
        (NAG(name="nag", scale=1), 0.0),
        (NAG(name="nag", scale=5, alpha=0), 0.0),
        (NASA(name="nasa", scale=0), 0.0),
        # The second text's tokens have exp(-100) of the attention, which is none in single precision; but a sum over
        # more tokens adds up in another order, in every layer.
        (VSF(name="vsf", scale=1, bias=100), 1e-5),
    ],
    ids=["nag scale 1", "nag alpha 0", "nasa scale 0", "vsf bias 100"],
)
def test_neutral_settings_are_the_plain_attention_even_where_they_are_installed(parts, how, within):
    network, encoder = parts
    texts = {name: encoder.encode(values) for name, values in TEXTS.items()}
    x = torch.randn(4, *network.sample_shape, generator=torch.Generator().manual_seed(0))
    plain = network(x, 1.0, texts["prompt"])
    found = network(x, 1.0, told(texts, steering(how)), attention=how)
    torch.testing.assert_close(found, plain, atol=within, rtol=0)


@pytest.mark.parametrize("name", ATTENTION_SPACE)
def test_a_neutral_arm_is_the_plain_conditional_bit_for_bit(parts, name):
    neutral = guidance_of(arm(name, attention=NEUTRAL[name]))
    assert neutral == Guidance()
    assert torch.equal(draw(parts, neutral)[0], draw(parts, Guidance())[0])


@methods
def test_every_method_acts_beyond(parts, how):
    plain, steered_ = draw(parts, Guidance())[0], draw(parts, Guidance(main=steering(how)))[0]
    assert (plain - steered_).abs().max() > 1e-3


def test_appended_tokens_take_attention_whatever_their_values_are(parts):
    """So scale 0 of VSF is not the limit of small scales, and its bias is what makes it weak."""
    plain = draw(parts, Guidance())[0]
    small, hidden = (VSF(name="vsf", scale=1e-6, bias=bias) for bias in (0, 20))
    assert (draw(parts, Guidance(main=steering(small)))[0] - plain).abs().max() > 1e-3
    torch.testing.assert_close(draw(parts, Guidance(main=steering(hidden)))[0], plain, atol=1e-5, rtol=0)


def counted(network, draw_it):
    calls = []
    handle = network.unet.register_forward_pre_hook(lambda _, args: calls.append(len(args[0])))
    result = draw_it()
    handle.remove()
    return calls, result


@methods
def test_a_step_is_one_evaluation_of_the_network(parts, how):
    calls, (_, trace) = counted(parts[0], lambda: draw(parts, Guidance(main=steering(how))))
    assert calls == [4] * 4  # four images, four steps
    assert evaluations(trace) == (Counter({how.name: 4}), Counter())


@methods
def test_terms_beside_it_are_not_steered(parts, how):
    """With CFG the empty prompt is evaluated as ever, in a call of its own."""
    network, encoder = parts
    both = Guidance((Term(EMPTY, 2.0),), main=steering(how))
    calls, (_, trace) = counted(network, lambda: draw(parts, both))
    assert calls == [4, 4] * 4
    assert evaluations(trace)[0] == Counter({how.name: 4, "empty": 4})
    texts = {name: encoder.encode(values) for name, values in TEXTS.items()}
    x = torch.randn(4, *network.sample_shape)
    before = network(x, 1.0, texts["empty"])
    network(x, 1.0, told(texts, steering(how)), attention=how)
    assert torch.equal(network(x, 1.0, texts["empty"]), before)


@methods
def test_two_texts_in_a_call_are_each_steered_away_from_its_own(parts, how):
    network, encoder = parts
    texts = {name: encoder.encode(values) for name, values in TEXTS.items()}
    one = steering(how)
    other = replace(one, text="empty", attention=how.model_copy(update={"text": "prompt"}))
    x = torch.randn(4, *network.sample_shape)
    apart = [network(x, 1.0, told(texts, own), attention=how) for own in (one, other)]
    together = network(x, 1.0, joined([told(texts, own) for own in (one, other)]), 2, attention=how)
    torch.testing.assert_close(together, torch.cat(apart), atol=1e-4, rtol=0)
    assert (apart[0] - apart[1]).abs().max() > 1e-4


@methods
def test_an_image_does_not_depend_on_its_batch(parts, how):
    guidance, texts = Guidance(main=steering(how)), {**TEXTS, "negative": PROMPTS[1:] + PROMPTS[:1]}
    together = draw(parts, guidance, texts)[0]
    alone = torch.cat([draw(parts, guidance, texts, slice(k, k + 1))[0] for k in range(4)])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)


def processors(unet):
    return {name: id(processor) for name, processor in unet.attn_processors.items()}


@methods
def test_it_leaves_nothing_behind_even_after_an_exception(parts, how):
    unet, second = parts[0].unet, Conditioning({"negative_tokens": torch.zeros(1, 8, 32)})
    before = processors(unet), [set(module.__dict__) for module in unet.modules()]

    def fail():
        with steered(unet, how, second, CPU):
            changed = {name for name, own in processors(unet).items() if own != before[0][name]}
            assert changed == {name for name in before[0] if ".attn2." in name}
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (processors(unet), [set(module.__dict__) for module in unet.modules()]) == before


def test_layers_are_chosen_by_name(parts):
    unet, second = parts[0].unet, Conditioning({"negative_tokens": torch.zeros(1, 8, 32)})
    before = processors(unet)
    with steered(unet, NASA(name="nasa", layers=("mid_block",)), second, CPU):
        changed = {name for name, own in processors(unet).items() if own != before[name]}
    assert changed == {name for name in before if ".attn2." in name and name.startswith("mid_block")} != set()
    unknown = NASA(name="nasa", layers=("attic",))
    with (
        pytest.raises(InputError, match="the network has no transformer block under 'attic'"),
        steered(unet, unknown, second, CPU),
    ):
        pass
    assert processors(unet) == before


@methods
def test_damage_of_self_attention_goes_with_it(parts, how):
    network, encoder = parts
    texts = {name: encoder.encode(values) for name, values in TEXTS.items()}
    own, x = told(texts, steering(how)), torch.randn(4, *network.sample_shape)
    damage = Perturbation("pag", ("mid_block",))
    both = network(x, 1.0, own, damage=damage, attention=how)
    for alone in (network(x, 1.0, own, attention=how), network(x, 1.0, own, damage=damage)):
        assert (both - alone).abs().max() > 1e-5


@methods
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["sd", "sd2", "sdxl"])
def test_every_family_of_unets_is_steered(pipelines_folder, how, kind, dtype):
    checkpoint = locate(str(pipelines_folder / kind))
    network = load_network(checkpoint, CPU, Loading(dtype=dtype))
    encoder = EncodedTexts(load_text_encoder(checkpoint, CPU))
    texts = encoder.encode_together(TEXTS, references=("empty", "negative"))
    texts = {name: own.adding(network.added_conditions(4, None)) for name, own in texts.items()}
    _, length, _ = texts["negative"]["tokens"].shape
    unpadded = encoder.content(TEXTS["negative"], length, marks=True)
    texts["negative"] = texts["negative"].adding({"unpadded": unpadded})
    x = torch.randn(4, *network.sample_shape, generator=torch.Generator().manual_seed(0))
    plain, away = network(x, 1.0, texts["prompt"]), network(x, 1.0, told(texts, steering(how)), attention=how)
    assert away.isfinite().all()
    assert (away - plain).abs().max() > 1e-3


@methods
@pytest.mark.parametrize("held", [{"attention_slicing": True}, {"offload": True}, {"compile": True}], ids=str)
def test_networks_are_steered_however_their_weights_are_held(pipelines_folder, monkeypatch, how, held):
    own, compiled = UNet2DConditionModel.compile, []

    def backend(graph, _):
        compiled.append(graph)
        return graph.forward

    monkeypatch.setattr(UNet2DConditionModel, "compile", lambda unet, **how: own(unet, backend=backend, **how))
    torch.manual_seed(0)
    x, tokens = torch.randn(2, 4, 10, 7), torch.randn(2, 2, 8, 32)
    texts = {"prompt": Conditioning({"tokens": tokens[0]}), "negative": Conditioning({"tokens": tokens[1]})}
    outputs = []
    for loading in (Loading(), Loading(**held)):
        network = load_network(pipelines_folder / "sd", CPU, loading)
        for _ in range(2):  # there and back, and again
            plain = network(x, 1.0, texts["prompt"])
            away = network(x, 1.0, told(texts, steering(how)), attention=how)
        # Another second text, read by the same compiled code.
        swapped = {**texts, "negative": Conditioning({"tokens": -tokens[1]})}
        outputs.append((plain, away, network(x, 1.0, told(swapped, steering(how)), attention=how)))
    assert (outputs[1][1] - outputs[1][0]).abs().max() > 1e-4
    assert (outputs[1][1] - outputs[1][2]).abs().max() > 1e-5
    torch.testing.assert_close(outputs[1], outputs[0], atol=1e-4, rtol=1e-4)
    # Once for the plain network and once for the steered one, whatever the text.
    assert len(compiled) == (2 if "compile" in held else 0)


@methods
@pytest.mark.parametrize(
    ("place", "most"), [("random", 1.5), ("embedded", 1.06), ("sd", 1.5), ("as large as sd", 1.01)]
)
def test_it_costs_far_less_than_a_second_evaluation(networks_folder, pipelines_folder, how, place, most):
    """Of the small networks cross-attention is a larger share than of the real ones."""
    if place == "as large as sd":
        with init_empty_weights():
            unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
        network = DenoisingNetwork(unet, DDPMScheduler(), 1)
    else:
        folders = {"random": networks_folder / "main", "sd": pipelines_folder / "sd"}
        network = load_network(folders.get(place, ROOT / "models/tinybooru/main"), CPU)
    tokens = torch.randn(1, 77, network.unet.config.cross_attention_dim)
    texts = {name: Conditioning({"tokens": tokens}) for name in ("prompt", "negative")}
    x = torch.zeros(1, *network.sample_shape)
    plain = prediction_flops(network, MAIN, x, texts["prompt"])
    counted = prediction_flops(network, steering(how), x, told(texts, steering(how)))
    both = plain + prediction_flops(network, NEGATIVE, x, texts["negative"])
    assert both == 2 * plain
    assert plain < counted < most * plain < both


@pytest.mark.parametrize("name", ["nag", "nasa"])
def test_the_extra_cost_is_the_second_text_s_keys_values_and_attention_and_no_more(pipelines_folder, name):
    network = load_network(pipelines_folder / "sd", CPU)
    tokens, width = 77, 32
    texts = {text: Conditioning({"tokens": torch.randn(1, tokens, width)}) for text in ("prompt", "negative")}
    x = torch.zeros(1, 4, 16, 16)
    own = steering(ACTING[name])
    extra = prediction_flops(network, own, x, told(texts, own)) - prediction_flops(network, MAIN, x, texts["prompt"])
    expected, positions = 0, []
    hooks = [
        module.register_forward_pre_hook(lambda m, args: positions.append((args[0].shape[1], m.to_q.out_features)))
        for layer, module in network.unet.named_modules()
        if layer.endswith("attn2")
    ]
    network(x, 1.0, texts["prompt"])
    for hook in hooks:
        hook.remove()
    for n, inner in positions:
        # Keys and values; scores and sums of values; a multiply-add is two.
        expected += 2 * (2 * tokens * width * inner) + 2 * (2 * n * tokens * inner)
    assert extra == expected > 0


WINDOW = {"name": "window", "start": 0.25, "stop": 0.75}


@methods
def test_outside_of_its_window_the_prediction_is_the_plain_one_and_costs_as_much(parts, how):
    part = how.model_copy(
        update={"schedule": type(how).model_validate({"name": how.name, "schedule": WINDOW}).schedule}
    )
    whole, never = draw(parts, Guidance(main=steering(how)))[0], draw(parts, Guidance())[0]
    drawn, trace = draw(parts, Guidance((Term(EMPTY, 1.0),), main=steering(part)))
    assert [step.main for step in trace] == ["main", how.name, how.name, "main"]
    assert evaluations(trace)[0] == Counter({"main": 2, how.name: 2})
    assert (drawn - whole).abs().max() > 1e-4 < (drawn - never).abs().max()
    assert {p.name for p in Guidance(main=steering(part)).predictions()} == {"main", how.name}
    none = how.model_copy(
        update={
            "schedule": type(how)
            .model_validate({"name": how.name, "schedule": {"name": "interval", "lo": 1e6, "hi": 1e7}})
            .schedule
        }
    )
    assert torch.equal(draw(parts, Guidance(main=steering(none)))[0], never)


def test_outside_of_its_window_it_goes_through_the_network_with_the_terms(parts):
    window = guidance_of(arm(method="cfg", scale=2.0, attention={"schedule": WINDOW}))
    calls, _ = counted(parts[0], lambda: draw(parts, window))
    assert calls == [8, 4, 4, 4, 4, 8]


def test_the_effective_scale_is_told_by_the_plain_prediction(parts):
    """D = prompt - empty is of the plain predictions, and a steered main does not pass for one."""
    unknown = draw(parts, guidance_of(arm(probes=["empty"])))[1]
    assert all(step.effective_scale.isnan().all() for step in unknown)
    _, known = draw(parts, guidance_of(arm(probes=["main", "empty"])))
    assert [step.main for step in known] == ["nag"] * 4
    assert [(step.references, step.probed) for step in known] == [(("main", "empty"),) * 2] * 4
    assert all(step.effective_scale.isfinite().all() for step in known)
    # Installed but neutral in effect, the push is D itself.
    weak = replace(steering(ACTING["nag"]), attention=NAG(name="nag", scale=5, alpha=1e-6))
    _, trace = draw(parts, Guidance(probes=(MAIN, EMPTY), main=weak))
    for step in trace:
        torch.testing.assert_close(step.effective_scale, torch.ones(4), atol=1e-3, rtol=0)


def test_a_noised_main_does_not_take_the_name_of_the_plain_one_either(parts):
    noised = Arm(method="unguided", scale=1, noise={"low": 0.0, "high": 0.5}, probes=("main", "empty"))
    guidance = guidance_of(noised)
    assert guidance.main.name == NOISED
    _, trace = draw(parts, guidance)
    assert trace[0].references == ("main", "empty")
    assert evaluations(trace) == (Counter({NOISED: 4}), Counter({"main": 4, "empty": 4}))


def test_the_plain_prediction_can_be_a_reference(parts):
    """What NAG does to a prediction, three times as much of it."""
    mix = guidance_of(arm(method="mix", scale=3.0, terms=[{"reference": "main"}]))
    assert mix.terms == (Term(MAIN, 3.0),)
    _, trace = draw(parts, mix)
    assert all(step.references == ("main",) for step in trace)


def test_the_texts_that_it_reads_are_the_arm_s(networks_folder, study):
    own = arm(texts={"hands": "bad hands"}, attention={"text": "hands"}, negative_prompt=None)
    assert own.read_texts == {"hands"}
    assert own.used_negative == "bad hands"
    assert (own.family, own.shown_method) == ("nag", "nag 3")
    assert arm().used_negative == "worst quality, lowres"
    beside = arm("vsf", method="cfg", scale=2.0, attention={"scale": 0.5})
    assert (beside.family, beside.shown_method) == ("cfg_vsf", "cfg + vsf 0.5")
    assert Arm(method="cfg", scale=2.0).shown_method == "cfg"
    assert arm(attention={"text": "empty"}, negative_prompt=None).read_texts == {"empty"}
    assert guidance_of(own).main.texts == ("prompt", "hands")
    of_study = study.model_copy(update={"arms": {**study.arms, "nag": arm(), "hands": own}})
    assert set(arm_texts(of_study, "nag")) == {"prompt", "negative"}
    assert arm_texts(of_study, "hands")["hands"] == ["bad hands"] * 16
    # A neutral arm reads nothing else.
    neutral = study.model_copy(update={"arms": {**study.arms, "nag": arm(attention={"scale": 1.0})}})
    assert set(arm_texts(neutral, "nag")) == {"prompt"}


def test_settings_and_the_second_text_are_in_the_fingerprint(networks_folder, study):
    def printed(own: Arm) -> list[str]:
        of_study = study.model_copy(update={"arms": {**study.arms, "own": own}})
        return [shard.fingerprint for shard in plan_arm(of_study, "own", arm_texts(of_study, "own"), "cpu").shards]

    changed = [
        arm(),
        arm(attention={"tau": 2.0}),
        arm(negative_prompt="blurry"),
        arm("nasa"),
        arm(method="cfg", scale=2),
    ]
    assert len({printed(own)[0] for own in changed}) == len(changed)
    assert printed(arm()) == printed(arm(description="the same"))


@pytest.mark.parametrize("name", ATTENTION_SPACE)
def test_an_arm_is_generated_and_its_cost_is_that_of_what_was_evaluated(networks_folder, study, name):
    of_study = study.model_copy(update={"arms": {"own": arm(name), "plain": Arm(method="unguided", scale=1)}})
    drawn = {}
    for own in of_study.arms:
        texts = {text: values[:4] for text, values in arm_texts(of_study, own).items()}
        drawn[own] = ArmGenerator(of_study, own, CPU).draw(texts, SEEDS)
    cost, plain = drawn["own"].cost, drawn["plain"].cost
    assert cost.nfe == plain.nfe
    assert plain.flops < cost.flops < 1.5 * plain.flops
    assert drawn["own"].images[0].tobytes() != drawn["plain"].images[0].tobytes()


@pytest.mark.parametrize(
    ("own", "column"),
    [
        (arm(), "worst quality, lowres"),
        (arm(texts={"hands": "bad hands"}, attention={"text": "hands"}, negative_prompt=None), "bad hands"),
        (arm(method="negative", scale=2, texts={"a": "x"}, attention={"text": "a"}), "x, worst quality, lowres"),
        # What no network reads has made no image.
        (arm(attention={"scale": 1.0}), ""),
        (Arm(method="negative", scale=1, negative_prompt="blurry"), ""),
    ],
    ids=["nag", "named text", "both", "neutral nag", "negative at scale 1"],
)
def test_the_set_says_what_an_image_was_steered_away_from(networks_folder, study, tmp_path, own, column):
    of_study = study.model_copy(
        update={"arms": {"own": own}, "generate": study.generate.model_copy(update={"images": 4, "shard": 4})}
    )
    texts = arm_texts(of_study, "own")
    (shard,) = plan_arm(of_study, "own", texts, "cpu").shards
    generator = ShardGenerator(of_study, "own", Places.under(tmp_path), CPU)
    drawn = generator.draw(ShardTask.of(shard, texts), lambda _: None)
    assert pq.read_table(io.BytesIO(drawn.image_set))["negative_prompt"].to_pylist() == [column] * 4


def test_padding_is_known_and_marks_are_none(parts):
    encoder = EncodedTexts(parts[1])
    texts = {"prompt": ["waves"], "negative": ["worst quality, lowres"]}
    length = encoder.encode_together(texts)["prompt"]["tokens"].shape[1]
    words, marked = (encoder.content(texts["negative"], length, marks)[0] for marks in (False, True))
    assert marked.sum() == words.sum() + 2
    assert marked[0]
    assert marked[: int(marked.sum())].all()


def test_layers_that_are_not_there_are_refused_before_anything_is_generated(networks_folder, study):
    own = study.model_copy(update={"arms": {"nag": arm(attention={"layers": ["attic"]})}})
    with pytest.raises(
        InputError, match=r"arms.nag.attention.layers: the network has no transformer block under 'attic'"
    ):
        check_arms(own)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"attention": {"text": "hands"}, "negative_prompt": None},
            "attention.text 'hands' is unknown; known: empty, negative, unrelated",
        ),
        ({"attention": {"text": "prompt"}}, "is what the network is steered towards"),
        ({"negative_prompt": None}, "attention nag needs exactly one of negative_prompt"),
        ({"attention": {"text": "empty"}}, "method unguided takes none of negative_prompt"),
        ({"attention": {"scale": 0.5}}, "greater than or equal to 1"),
        ({"attention": {"bias": 1}}, "Extra inputs are not permitted"),
        ({"attention": {"layers": []}}, "at least 1 item"),
        ({"attention": {"schedule": {"name": "linear"}}}, "'constant', 'interval', 'window'"),
        ({"texts": {"nag": "x"}, "attention": {"text": "nag"}, "negative_prompt": None}, "texts.nag would hide"),
        ({"texts": {"hands": "x"}}, "'hands' is not used by any term, probe or attention"),
    ],
)
def test_what_cannot_be_is_refused_when_a_study_is_composed(settings, said):
    with pytest.raises(ValidationError, match=said):
        arm(**settings)


def test_only_arms_whose_main_prediction_is_another_one_have_the_plain_one_as_a_reference():
    with pytest.raises(ValidationError, match="probes name the reference 'main', which is unknown"):
        Arm(method="unguided", scale=1, probes=("main",))
    assert guidance_of(arm(probes=["main"])).probes == (MAIN,)
    assert guidance_of(arm(probes=["negative"])).probes == (NEGATIVE,)
