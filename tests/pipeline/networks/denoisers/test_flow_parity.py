"""Images of flow-matching families are those of diffusers' own pipelines with the same weights, seeds and settings."""

from collections.abc import Callable
from copy import copy
from dataclasses import replace

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3PAGPipeline
from flow_pipelines import T5_LENGTH
from parity_pairs import NEGATIVE, PROMPTS, WIDE, WORSE, Pair, assert_equal

from pipeline.study.sampler import Canvas


@pytest.mark.parametrize("canvas", [None, WIDE])
@pytest.mark.parametrize("name", ["sd3", "sd3_shifting"])
def test_images_of_sd3_are_those_of_the_pipeline(
    pair_of: Callable[..., Pair], name: str, canvas: Canvas | None
) -> None:
    pair = pair_of(name)
    assert_equal(pair.ours(canvas), pair.theirs(canvas, guidance_scale=1.0))
    assert_equal(pair.ours(canvas, **NEGATIVE), pair.theirs(canvas, guidance_scale=5.0, negative_prompt=[WORSE] * 2))
    assert_equal(pair.ours(canvas, method="cfg", scale=3.0), pair.theirs(canvas, guidance_scale=3.0))


def test_images_of_sd3_with_skipped_blocks_are_those_of_the_pipeline(pair_of: Callable[..., Pair]) -> None:
    pair = pair_of("sd3")
    mine = pair.ours(
        method="mix",
        scale=5.0,
        terms=[
            {"reference": "negative", "share": 1.0},
            # Their scale is what is added, ours 1 more; steps are left out where theirs are.
            {"reference": "skip_layers", "scale": 3.8, "schedule": {"name": "window", "start": 0.25, "stop": 0.75}},
        ],
        perturb={"layers": ["transformer_blocks.1"]},
        negative_prompt=WORSE,
    )
    theirs = pair.theirs(
        guidance_scale=5.0,
        negative_prompt=[WORSE] * 2,
        skip_guidance_layers=[1],
        skip_layer_guidance_scale=2.8,
        skip_layer_guidance_start=0.01,
        skip_layer_guidance_stop=0.75,
    )
    assert_equal(mine, theirs)
    with pytest.raises(AssertionError):
        assert_equal(pair.ours(**NEGATIVE), theirs)


def test_perturbed_attention_of_sd3_is_that_of_its_own_pipeline(pair_of: Callable[..., Pair]) -> None:
    """Of a network without norms of queries and keys, which diffusers' processor for it leaves out."""
    pair = copy(pair_of("sd3_shifting"))
    parts = {name: part for name, part in pair.pipeline.components.items() if part is not None}
    parts["scheduler"] = FlowMatchEulerDiscreteScheduler(shift=3.0)
    pair.network = replace(pair.network, schedule=parts["scheduler"])
    before = pair.network.transformer.attn_processors
    pair.pipeline = StableDiffusion3PAGPipeline(**parts, pag_applied_layers=["blocks.1"])
    pair.pipeline.set_progress_bar_config(disable=True)
    theirs = pair.theirs(guidance_scale=1.0, pag_scale=2.0)
    guided = pair.theirs(guidance_scale=5.0, pag_scale=2.0, negative_prompt=[WORSE] * 2)
    pair.network.transformer.set_attn_processor(before)
    blocks = {"perturb": {"layers": ["transformer_blocks.1"]}}
    assert_equal(pair.ours(method="pag", scale=3.0, **blocks), theirs)
    terms = [{"reference": "negative"}, {"reference": "pag", "scale": 3.0}]
    assert_equal(pair.ours(method="mix", scale=5.0, terms=terms, negative_prompt=WORSE, **blocks), guided)
    with pytest.raises(AssertionError):
        assert_equal(pair.ours(), theirs)


@pytest.mark.parametrize("canvas", [None, WIDE])
@pytest.mark.parametrize("name", ["flux", "flux_schnell"])
def test_images_of_flux_are_those_of_the_pipeline(
    pair_of: Callable[..., Pair], name: str, canvas: Canvas | None
) -> None:
    pair = pair_of(name)
    canvas = canvas or Canvas(width=32, height=32)  # FLUX's own is 1024x1024
    assert_equal(pair.ours(canvas), pair.theirs(canvas))
    told = pair.ours(canvas, embedded_guidance=8.0)
    assert_equal(told, pair.theirs(canvas, guidance_scale=8.0))
    # Schnell was not trained with a guidance scale, and is told none.
    assert torch.equal(told[0], pair.ours(canvas)[0]) == (name == "flux_schnell")
    theirs = pair.theirs(canvas, guidance_scale=2.0, true_cfg_scale=5.0, negative_prompt=[WORSE] * 2)
    assert_equal(pair.ours(canvas, embedded_guidance=2.0, **NEGATIVE), theirs)
    theirs = pair.theirs(canvas, guidance_scale=1.0, true_cfg_scale=3.0, negative_prompt=["", ""])
    assert_equal(pair.ours(canvas, method="cfg", scale=3.0, embedded_guidance=1.0), theirs)


@pytest.mark.parametrize("canvas", [None, WIDE])
def test_images_of_flux_2_are_those_of_the_pipeline(pair_of: Callable[..., Pair], canvas: Canvas | None) -> None:
    pair = pair_of("flux2")
    canvas = canvas or Canvas(width=32, height=32)  # FLUX.2's own is 1024x1024
    theirs = pair.theirs(canvas)
    assert_equal(pair.ours(canvas), theirs)
    assert_equal(pair.ours(canvas, embedded_guidance=9.0), pair.theirs(canvas, guidance_scale=9.0))
    with pytest.raises(AssertionError):
        assert_equal(pair.ours(canvas, embedded_guidance=9.0), theirs)


@pytest.mark.parametrize("canvas", [None, WIDE])
def test_images_of_flux_2_klein_are_those_of_the_pipeline(pair_of: Callable[..., Pair], canvas: Canvas | None) -> None:
    pair = pair_of("flux2_klein")
    canvas = canvas or Canvas(width=32, height=32)
    assert_equal(pair.ours(canvas), pair.theirs(canvas, guidance_scale=1.0))
    theirs = pair.theirs(canvas, guidance_scale=5.0, negative_prompt=[WORSE] * 2)
    assert_equal(pair.ours(canvas, **NEGATIVE), theirs)
    assert_equal(pair.ours(canvas, method="cfg", scale=3.0), pair.theirs(canvas, guidance_scale=3.0))


@pytest.mark.parametrize("name", ["flux2", "flux2_klein"])
def test_a_prompt_of_flux_2_is_read_with_its_marks_line_breaks_and_padding(
    pair_of: Callable[..., Pair], name: str
) -> None:
    pair = pair_of(name)
    for text in ("", "\nhat", "hat\n", "<s> hat", "<|im_end|> hat", "a [IMG] hat"):
        theirs, _ = pair.pipeline.encode_prompt([text])
        torch.testing.assert_close(pair.encoder.encode([text])["tokens"], theirs)


@pytest.mark.parametrize("name", ["flux2", "flux2_klein"])
def test_an_image_of_flux_2_comes_back_from_its_latents_as_from_the_pipelines(
    pair_of: Callable[..., Pair], name: str
) -> None:
    pair = pair_of(name)
    images = torch.randint(0, 256, (2, 3, 24, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    found = pair.network.to_samples(images)
    theirs = pair.pipeline._encode_vae_image(images.float() / 127.5 - 1, [torch.Generator()] * 2)
    torch.testing.assert_close(found, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("canvas", [None, WIDE])
def test_images_of_chroma_are_those_of_the_pipeline(pair_of: Callable[..., Pair], canvas: Canvas | None) -> None:
    pair = pair_of("chroma")
    canvas = canvas or Canvas(width=32, height=32)  # its own is 1024x1024
    assert_equal(pair.ours(canvas), pair.theirs(canvas, guidance_scale=1.0))
    theirs = pair.theirs(canvas, guidance_scale=5.0, negative_prompt=[WORSE] * 2)
    assert_equal(pair.ours(canvas, **NEGATIVE), theirs)
    theirs = pair.theirs(canvas, guidance_scale=3.0, negative_prompt=["", ""])
    assert_equal(pair.ours(canvas, method="cfg", scale=3.0), theirs)


@pytest.mark.parametrize("canvas", [None, WIDE])
def test_images_of_qwen_image_are_those_of_the_pipeline(pair_of: Callable[..., Pair], canvas: Canvas | None) -> None:
    pair = pair_of("qwen_image")
    canvas = canvas or Canvas(width=32, height=32)  # its own is 1024x1024
    assert_equal(pair.ours(canvas), pair.theirs(canvas))
    theirs = pair.theirs(canvas, true_cfg_scale=5.0, negative_prompt=[WORSE] * 2)
    assert_equal(pair.ours(canvas, **NEGATIVE), theirs)
    with pytest.raises(AssertionError):  # without the norm that the pipeline has built in
        assert_equal(pair.ours(canvas, **NEGATIVE, built_in_post=False), theirs)
    theirs = pair.theirs(canvas, true_cfg_scale=3.0, negative_prompt=["", ""])
    assert_equal(pair.ours(canvas, method="cfg", scale=3.0), theirs)


def test_a_prompt_of_qwen_image_is_read_with_its_marks_and_line_breaks(pair_of: Callable[..., Pair]) -> None:
    pair = pair_of("qwen_image")
    for text in ("", " ", "\nhat", "hat\n", "<|im_end|> hat", "a {hat} of 3 %"):
        theirs, _ = pair.pipeline.encode_prompt([text])
        ours = pair.encoder.encode([text])
        torch.testing.assert_close(ours["tokens"][ours["read"]][None], theirs)


def test_padding_of_chroma_is_masked_where_the_pipeline_has_numbers_for_a_mask(pair_of: Callable[..., Pair]) -> None:
    pair = pair_of("chroma")
    tokens, _, mask, *_ = pair.pipeline.encode_prompt(PROMPTS, max_sequence_length=T5_LENGTH)
    told = pair.encoder.encode(PROMPTS)
    torch.testing.assert_close(told["tokens"], tokens)
    assert torch.equal(told["read"], mask.bool())
    assert mask.is_floating_point(), "the pipeline masks by itself now: compare with it as it is, without `masking`"


@pytest.mark.parametrize("canvas", [None, WIDE])
@pytest.mark.parametrize("name", ["lumina2", "lumina2_shifting"])
def test_images_of_lumina_2_are_those_of_the_pipeline(
    pair_of: Callable[..., Pair], name: str, canvas: Canvas | None
) -> None:
    pair = pair_of(name)
    assert_equal(pair.ours(canvas), pair.theirs(canvas, guidance_scale=1.0))
    told = {"guidance_scale": 5.0, "negative_prompt": [WORSE] * 2}
    normed = pair.ours(canvas, **NEGATIVE)
    assert_equal(normed, pair.theirs(canvas, **told))
    plain = pair.ours(canvas, **NEGATIVE, built_in_post=False)
    assert_equal(plain, pair.theirs(canvas, cfg_normalization=False, **told))
    with pytest.raises(AssertionError):
        assert_equal(normed, plain)
    half = {"schedule": {"name": "window", "stop": 0.5}}
    assert_equal(pair.ours(canvas, **NEGATIVE, **half), pair.theirs(canvas, cfg_trunc_ratio=0.5, **told))
    assert_equal(pair.ours(canvas, method="cfg", scale=3.0), pair.theirs(canvas, guidance_scale=3.0))


@pytest.mark.parametrize("canvas", [None, WIDE])
@pytest.mark.parametrize("name", ["z_image", "z_image_shifting"])
def test_images_of_z_image_are_those_of_the_pipeline(
    pair_of: Callable[..., Pair], name: str, canvas: Canvas | None
) -> None:
    pair = pair_of(name)
    canvas = canvas or Canvas(width=32, height=32)  # Z-Image's own is 1024x1024
    assert_equal(pair.ours(canvas), pair.theirs(canvas, guidance_scale=0.0))
    # Their scale is what is added, ours 1 more.
    told = {"guidance_scale": 4.0, "negative_prompt": [WORSE] * 2}
    assert_equal(pair.ours(canvas, **NEGATIVE), pair.theirs(canvas, **told))
    capped = {"post": {"name": "renorm", "per": "image", "cap": 1.1}}
    assert_equal(pair.ours(canvas, **NEGATIVE, **capped), pair.theirs(canvas, cfg_normalization=1.1, **told))
    # Guidance while 1 - t is at most 0.4, so from sigma = t / (1 - t) = 1.5 on.
    noisy = {"schedule": {"name": "interval", "lo": 1.4999, "hi": 1e6}}
    assert_equal(pair.ours(canvas, **NEGATIVE, **noisy), pair.theirs(canvas, cfg_truncation=0.4, **told))
    assert_equal(pair.ours(canvas, method="cfg", scale=3.0), pair.theirs(canvas, guidance_scale=2.0))


@pytest.mark.parametrize(
    ("name", "guided"),
    [
        ("sd3", {"guidance_scale": 5.0}),
        ("flux", {"true_cfg_scale": 5.0}),
        ("chroma", {"guidance_scale": 5.0}),
        ("flux2", {"guidance_scale": 4.0}),
        ("flux2_klein", {"guidance_scale": 5.0}),
        ("qwen_image", {"true_cfg_scale": 5.0}),
        ("lumina2", {"guidance_scale": 5.0}),
        ("z_image", {"guidance_scale": 4.0}),
    ],
)
def test_images_in_bfloat16_are_those_of_the_pipeline_within_rounding(
    pair_of: Callable[..., Pair], name: str, guided: dict[str, float]
) -> None:
    pair = pair_of(name, "bfloat16")
    # FLUX.2's pipeline takes no negative prompt.
    ours, negative = ({}, {}) if name == "flux2" else (NEGATIVE, {"negative_prompt": [WORSE] * 2})
    mine, theirs = pair.ours(WIDE, **ours), pair.theirs(WIDE, **negative, **guided)
    exact = pair_of(name).ours(WIDE, **ours)
    # Both round, theirs between steps as well: they lie about as far apart as each from single precision.
    error = float((theirs[1] - exact[1]).abs().mean())
    assert 0 < float((mine[1] - theirs[1]).abs().mean()) < 2 * error < 0.05
