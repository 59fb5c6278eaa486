"""What does not fit a family along rectified flow is refused by name, before anything is generated."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checked_networks import edit
from flow_pipelines import qwen_vl_tokenizer
from flow_studies import Flows


def lacking(part: str) -> Callable[[Path], object]:
    return lambda folder: shutil.rmtree(folder / part)


def edited(file: str, **values: Any) -> Callable[[Path], object]:
    return lambda folder: edit(folder / file, **values)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("sd3", lacking("text_encoder_3"), "text_encoder_3/config.json is missing"),
        ("sd3", lacking("vae"), "vae/config.json is missing"),
        ("flux", lacking("text_encoder_2"), "text_encoder_2/config.json is missing"),
        ("flux", lacking("tokenizer_2"), "tokenizer_2"),
        ("chroma", lacking("text_encoder"), "text_encoder/config.json is missing"),
        ("qwen_image", lacking("text_encoder"), "text_encoder/config.json is missing"),
        ("qwen_image", lacking("tokenizer"), "tokenizer"),
        ("qwen_image", lacking("vae"), "vae/config.json is missing"),
        ("qwen_image", edited("vae/config.json", _class_name="AutoencoderKL"), "AutoencoderKLQwenImage is supported"),
        ("qwen_image", edited("vae/config.json", z_dim=4), "not 4 numbers, one for each of its z_dim"),
        ("qwen_image", edited("vae/config.json", z_dim=4, latents_mean=[0] * 4, latents_std=[1] * 4), "z_dim to 4"),
        ("qwen_image", edited("vae/config.json", input_channels=4), "images have 3 channels"),
        ("qwen_image", edited("transformer/config.json", out_channels=8), "in_channels to 64 and out_channels to 32"),
        ("qwen_image", edited("transformer/config.json", zero_cond_t=True), "zero_cond_t to true: it reads an image"),
        ("qwen_image", edited("transformer/config.json", joint_attention_dim=96), "joint_attention_dim to 96"),
        ("qwen_image", edited("transformer/config.json", num_layers=3), "lacks .* of the .* weights of QwenImageT"),
        ("flux", edited("vae/config.json", _class_name="AutoencoderKLQwenImage"), "only AutoencoderKL is supported"),
        ("flux2", lacking("text_encoder"), "text_encoder/config.json is missing"),
        ("flux2", lambda folder: (folder / "tokenizer/chat_template.jinja").unlink(), "tokenizer has no chat templ"),
        ("flux2", edited("vae/config.json", _class_name="AutoencoderKL"), "only AutoencoderKLFlux2 is supported"),
        ("flux2", edited("vae/config.json", latent_channels=4), "sets latent_channels to 4"),
        ("flux2", edited("text_encoder/config.json", text_config={"model_type": "qwen3"}), "reads a mistral3 there"),
        ("flux2_klein", edited("tokenizer/tokenizer_config.json", pad_token=None), "no token for padding, which the n"),
        ("flux2_klein", edited("text_encoder/config.json", num_hidden_layers=9), "reads layer 27 of Qwen3; take the"),
        ("flux2_klein", edited("transformer/config.json", joint_attention_dim=64), "text embeddings .* have width 96;"),
        ("flux2_klein", edited("transformer/config.json", num_layers=2), "lacks .* of the .* weights of Flux2Transfo"),
        ("sd3", edited("transformer/config.json", in_channels=32, out_channels=16), "also reads an image or a mask"),
        ("flux", edited("vae/config.json", latent_channels=4), "sets latent_channels to 4"),
        ("sd3", edited("transformer/config.json", joint_attention_dim=96), "joint_attention_dim to 96"),
        ("flux", edited("transformer/config.json", pooled_projection_dim=96), "pooled_projection_dim to 96"),
        ("chroma", edited("transformer/config.json", joint_attention_dim=96), "joint_attention_dim to 96"),
        ("chroma", edited("text_encoder/config.json", model_type="clip_text_model"), "reads a t5 there"),
        ("sd3", edited("text_encoder_3/config.json", model_type="gemma2"), "describes a gemma2 model"),
        ("sd3", edited("transformer/config.json", num_layers=4), "lacks .* of the .* weights of SD3Transformer2DModel"),
        ("flux", edited("transformer/config.json", num_single_layers=1), "that the configuration has no place for"),
        ("flux", edited("scheduler/scheduler_config.json", _class_name="DDIMScheduler"), "FlowMatchEulerDiscreteSche"),
        ("sd3", edited("scheduler/scheduler_config.json", stochastic_sampling=True), "stochastic_sampling to true"),
        ("lumina2", lacking("text_encoder"), "text_encoder/config.json is missing"),
        ("lumina2", lacking("vae"), "vae/config.json is missing"),
        ("lumina2", edited("transformer/config.json", cap_feat_dim=96), "sets cap_feat_dim to 96"),
        ("lumina2", edited("text_encoder/config.json", model_type="qwen3"), "describes a qwen3 model"),
        ("lumina2", edited("tokenizer/tokenizer_config.json", tokenizer_class="T5Tokenizer"), "only GemmaTokenizer is"),
        ("lumina2", edited("transformer/config.json", num_layers=1), "that the configuration has no place for"),
        ("z_image", lacking("tokenizer"), "tokenizer"),
        ("z_image", lambda folder: (folder / "tokenizer/chat_template.jinja").unlink(), "tokenizer has no chat templ"),
        ("z_image", edited("vae/config.json", latent_channels=4), "sets latent_channels to 4"),
        ("z_image", edited("transformer/config.json", cap_feat_dim=96), "sets cap_feat_dim to 96"),
        ("z_image", edited("text_encoder/config.json", model_type="t5"), "describes a t5 model"),
        ("z_image", edited("scheduler/scheduler_config.json", invert_sigmas=True), "invert_sigmas to true"),
    ],
)  # fmt: skip
def test_a_checkpoint_whose_parts_do_not_fit_is_refused(
    flows: Flows, name: str, change: Callable[[Path], object], said: str
) -> None:
    change(flows.copy(name))
    assert re.search(said, flows.refused(name))


@pytest.mark.parametrize(
    ("names", "more", "said"),
    [
        (("sd3", "flux"), {"method": "autoguidance", "scale": 2.0}, "the guide flux does not fit: "),
        (("chroma", "flux"), {"method": "autoguidance", "scale": 2.0}, "guide flux does not fit: width of the pooled"),
        (("qwen_image", "flux"), {"method": "autoguidance", "scale": 2.0}, "the guide flux does not fit: "),
        (("qwen_image",), {"canvas": {"width": 30, "height": 32}}, "must be multiples of 4"),
        (("qwen_image",), {"method": "pag", "scale": 2.0}, "the network has no transformer block under 'mid_block'"),
        (("qwen_image",), {"embedded_guidance": 2.0}, "and qwen_image (qwen_image) reads no guidance scale"),
        (("qwen_image",), {"text": {"t5_length": 32}}, "text.t5_length is for families that read T5, and qwen_image"),
        (("qwen_image",), {"text": {"chunks": 2}}, "reads the tokens of Qwen2.5-VL alone, which has no chunks"),
        (
            ("qwen_image",),
            {"method": "negative", "scale": 2.0, "negative_prompt": "hat " * 600},
            "tokens of Qwen2.5-VL, the end of its message included, and 512 are read; shorten it",
        ),
        (
            ("qwen_image",),
            {"text": {"syntax": "a1111"}, "method": "negative", "scale": 2.0, "negative_prompt": "a (hat:1.3)"},
            "qwen_image (qwen_image) reads the tokens of Qwen2.5-VL, which knows no weights; take them out, or set",
        ),
        (
            ("qwen_image",),
            {"method": "mix", "scale": 2.0, "terms": [{"reference": "cut"}], "texts": {"cut": {"degraded": 0.5}}},
            "arms.arm.texts.cut degrades tokens to the empty text's at their places, and qwen_image (qwen_image) reads",
        ),
        (("flux2", "flux"), {"method": "autoguidance", "scale": 2.0}, "the guide flux does not fit: width of the text"),
        (("flux2", "flux2_klein"), {"method": "autoguidance", "scale": 2.0}, "text encoders is Mistral Small 3 in the"),
        (("flux2",), {"canvas": {"width": 30, "height": 32}}, "must be multiples of 4"),
        (("flux2",), {"method": "pag", "scale": 2.0}, "the network has no transformer block under 'mid_block'"),
        (("flux2_klein",), {"embedded_guidance": 2.0}, "flux2_klein (flux2_klein) reads no guidance scale; leave it"),
        (
            ("flux2_klein",),
            {"method": "negative", "scale": 2.0, "negative_prompt": "hat " * 600},
            "tokens of Qwen3, chat template included, and 512 are read; shorten it",
        ),
        (("chroma",), {"built_in_post": False}, "the pipeline of chroma (chroma) has no post-process built in; leave"),
        (("chroma",), {"canvas": {"width": 30, "height": 32}}, "must be multiples of 4"),
        (("chroma",), {"method": "seg", "scale": 2.0}, "the network has no transformer block under 'mid_block'"),
        (("chroma",), {"embedded_guidance": 2.0}, "embedded_guidance is 2, and chroma (chroma) reads no guidance"),
        (("chroma",), {"text": {"t5_length": 8}}, "tokens of T5, end mark included, and text.t5_length is 8"),
        (("chroma",), {"text": {"clip_skip": 1}}, "text.clip_skip is 1; chroma (chroma) reads the tokens of T5 alone"),
        (
            ("chroma",),
            {"text": {"syntax": "a1111"}, "method": "negative", "scale": 2.0, "negative_prompt": "a (hat:1.3)"},
            "text negative gives 'hat' the weight 1.3",
        ),
        (("sd3",), {"canvas": {"width": 34, "height": 32}}, "must be multiples of 4"),
        (("sd3",), {"canvas": {"width": 80, "height": 32}}, "positions for sides of up to 64 pixels"),
        (("flux",), {"canvas": {"width": 30, "height": 32}}, "must be multiples of 4"),
        (("flux2_klein",), {"canvas": {"width": 30, "height": 32}}, "must be multiples of 4"),
        (("z_image",), {"canvas": {"width": 32, "height": 34}}, "must be multiples of 4"),
        (("flux",), {"text": {"t5_length": 8}}, "tokens of T5, end mark included, and text.t5_length is 8"),
        (("sd3",), {"method": "pag", "scale": 2.0}, "the network has no transformer block under 'mid_block'"),
        (
            ("flux",),
            {"attention": {"name": "nag", "layers": ["mid_block"]}, "negative_prompt": "lowres"},
            "arms.arm.attention.layers: the network has no transformer block under 'mid_block'",
        ),
        (("sd3",), {"embedded_guidance": 2.0}, "arms.arm.embedded_guidance is 2, and sd3 (sd3) reads no guidance"),
        (("flux_schnell",), {"embedded_guidance": 2.0}, "reads no guidance scale"),
        (("sd3",), {"text": {"t5_length": 8}}, "tokens of T5, end mark included, and text.t5_length is 8"),
        (("flux",), {"text": {"chunks": 2}}, "text.chunks is 2; flux (flux) reads the tokens of T5 alone"),
        (("flux",), {"text": {"clip_skip": 1}}, "text.clip_skip is 1; flux (flux) reads the tokens of T5 alone"),
        (
            ("flux",),
            {"text": {"syntax": "a1111"}, "method": "negative", "scale": 2.0, "negative_prompt": "a (hat:1.3)"},
            "text negative gives 'hat' the weight 1.3",
        ),
        (("sd3",), {"model": {"loading": {"attention_slicing": True}}}, "attention_slicing is for UNets"),
        (("lumina2", "z_image"), {"method": "autoguidance", "scale": 2.0}, "the guide z_image does not fit: "),
        (("lumina2", "sd3"), {"method": "autoguidance", "scale": 2.0}, "the guide sd3 does not fit: "),
        (("lumina2",), {"canvas": {"width": 34, "height": 32}}, "must be multiples of 4"),
        (("z_image",), {"canvas": {"width": 80, "height": 32}}, "positions for sides of up to 64 pixels"),
        (("lumina2",), {"method": "seg", "scale": 2.0}, "the network has no transformer block under 'mid_block'"),
        (
            ("z_image",),
            {"method": "skip_layers", "scale": 2.0, "perturb": {"layers": ["context_refiner.0"]}},
            "no transformer block under 'context_refiner.0'; its blocks are noise_refiner.0, layers.0, layers.1",
        ),
        (
            ("lumina2",),
            {"attention": {"name": "nag", "layers": ["noise_refiner"]}, "negative_prompt": "lowres"},
            "blocks under noise_refiner read no text; take some of layers.0, layers.1",
        ),
        (
            ("z_image",),
            {"method": "mix", "scale": 2.0, "terms": [{"reference": "less"}], "texts": {"less": {"degraded": 0.5}}},
            "arms.arm.texts.less degrades tokens to the empty text's at their places",
        ),
        (("z_image",), {"embedded_guidance": 2.0}, "z_image (z_image) reads no guidance"),
        (("z_image",), {"built_in_post": False}, "has no post-process built in; leave it out"),
        (("lumina2",), {"text": {"t5_length": 64}}, "text.t5_length is for families that read T5"),
        (("lumina2",), {"text": {"chunks": 2}}, "text.chunks is 2; lumina2 (lumina2) reads the tokens of Gemma 2"),
        (("z_image",), {"text": {"clip_skip": 1}}, "text.clip_skip is 1; z_image (z_image) reads the tokens of Qwen3"),
        (
            ("z_image",),
            {"text": {"syntax": "a1111"}, "method": "negative", "scale": 2.0, "negative_prompt": "a (hat:1.3)"},
            "text negative gives 'hat' the weight 1.3; z_image (z_image) reads the tokens of Qwen3, which kn",
        ),
        (
            ("lumina2",),
            {"method": "negative", "scale": 2.0, "negative_prompt": "worst quality, " * 200},
            "text negative 'worst quality, worst quality, worst quality, worst quality, ...' has ",
        ),
        (
            ("z_image",),
            {"method": "negative", "scale": 2.0, "negative_prompt": "hat " * 600},
            "tokens of Qwen3, chat template included, and 512 are read; shorten it",
        ),
        (
            ("flux2",),
            {"method": "negative", "scale": 2.0, "negative_prompt": "hat " * 600},
            "tokens of Mistral Small 3, chat template included, and 512 are read; shorten it",
        ),
    ],
)  # fmt: skip
def test_what_a_family_does_not_take_is_refused_by_name(
    flows: Flows, names: tuple[str, ...], more: dict[str, Any], said: str
) -> None:
    assert said in flows.refused(*names, **more)


def test_a_tokenizer_that_cuts_the_template_in_another_way_is_refused(flows: Flows) -> None:
    qwen_vl_tokenizer(300).save_pretrained(flows.copy("qwen_image") / "tokenizer")
    said = flows.refused("qwen_image")
    assert re.fullmatch(r"qwen_image/tokenizer makes \d+ tokens of what Qwen2.5-VL is told before .*first 34; .*", said)


def test_an_index_of_a_family_that_is_not_supported_is_named(flows: Flows) -> None:
    folder = flows.copy("flux")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "_class_name": "SanaPipeline"}))
    assert "flux is SANA (SanaPipeline), which is not supported" in flows.refused("flux")
