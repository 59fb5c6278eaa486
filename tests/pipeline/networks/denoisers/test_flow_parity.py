"""Images of flow-matching families are those of diffusers' own pipelines with the same weights, seeds and settings."""

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    ChromaPipeline,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    FluxImg2ImgPipeline,
    FluxPipeline,
    Lumina2Pipeline,
    QwenImageImg2ImgPipeline,
    QwenImagePipeline,
    StableDiffusion3Img2ImgPipeline,
    StableDiffusion3PAGPipeline,
    StableDiffusion3Pipeline,
    ZImageImg2ImgPipeline,
    ZImagePipeline,
)
from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu
from flow_pipelines import T5_LENGTH

from pipeline.generation.arm_guidance import guidance_of
from pipeline.networks.checkpoints import locate
from pipeline.prompting.text_settings import TextSettings
from pipeline.sampling.sampler import sample
from pipeline.sampling.starts import IMAGE_TO_IMAGE_SEED, FromImages, initial_noise
from pipeline.sampling.steppers import build_stepper
from pipeline.study.arm import Arm
from pipeline.study.loading import Loading
from pipeline.study.sampler import Canvas, Sampler

CPU = torch.device("cpu")
STEPS, SEEDS = 4, [3, 4]
PROMPTS, WORSE = ["1person, blue hair, smile", "pattern"], "worst quality, lowres"
KINDS: dict[str, Any] = {
    "sd3": StableDiffusion3Pipeline,
    "flux": FluxPipeline,
    "flux2": Flux2Pipeline,
    "flux2_klein": Flux2KleinPipeline,
    "chroma": ChromaPipeline,
    "qwen_image": QwenImagePipeline,
    "lumina2": Lumina2Pipeline,
    "z_image": ZImagePipeline,
}
WIDE = Canvas(width=48, height=24)

PACKED = (FluxPipeline, ChromaPipeline, QwenImagePipeline)
PATCHES = (Flux2Pipeline, Flux2KleinPipeline)


def masking(pipeline: Any, told: dict[str, Any]) -> dict[str, Any]:
    """What Chroma's pipeline is told of its texts to have their padding masked.

    Its own mask is made of numbers, which attention adds to its scores instead: padding is read.
    """
    guided = told.get("guidance_scale", 5.0) > 1
    tokens, _, mask, negative_tokens, _, negative_mask = pipeline.encode_prompt(
        told["prompt"],
        told.get("negative_prompt"),
        do_classifier_free_guidance=guided,
        max_sequence_length=T5_LENGTH,
    )
    given = {"prompt": None, "prompt_embeds": tokens, "prompt_attention_mask": mask.bool()}
    if not guided:
        return given
    more = {"negative_prompt_embeds": negative_tokens, "negative_prompt_attention_mask": negative_mask.bool()}
    return given | more | {"negative_prompt": None}


class Pair:
    """diffusers' pipeline and this project's parts, of the same folder."""

    def __init__(self, folder: Path, dtype: str = "float32"):
        checkpoint, loading = locate(str(folder)), Loading(dtype=dtype)
        self.dtype = getattr(torch, dtype)
        self.pipeline = KINDS[checkpoint.family.name].from_pretrained(
            folder, use_safetensors=True, torch_dtype=self.dtype
        )
        self.pipeline.set_progress_bar_config(disable=True)
        self.network = checkpoint.family.load(checkpoint, CPU, loading)
        name = checkpoint.family.name
        if name == "lumina2":  # which takes it for 8
            self.pipeline.vae_scale_factor = self.network.factor
        self.t5 = {"max_sequence_length": T5_LENGTH} if name in ("sd3", "flux") else {}
        self.encoder = checkpoint.family.load_texts(checkpoint, CPU, TextSettings(t5_length=T5_LENGTH), self.dtype)

    def ours(
        self, canvas: Canvas | None = None, start: FromImages | None = None, **settings: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Finished samples and pixels in [0, 1], [B, C, H, W] each."""
        arm = Arm(**{"method": "unguided", "scale": 1.0, **settings})
        guidance = guidance_of(arm, self.network.family.post)
        known = {"prompt": PROMPTS, "empty": ["", ""], "negative": [arm.negative] * 2}
        needed = dict.fromkeys(text for prediction in guidance.predictions() for text in prediction.texts)
        references = {*needed} - {"prompt"}
        conditioning = self.encoder.encode_together({text: known[text] for text in needed}, references)
        added = self.network.added_conditions(len(SEEDS), canvas)
        if arm.embedded_guidance is not None:
            added = added | {"embedded_guidance": torch.full((len(SEEDS),), arm.embedded_guidance)}
        conditioning = {text: told.adding(added) for text, told in conditioning.items()}
        shape = self.network.shape_of(canvas)
        sampler, schedule = Sampler(scheduler="euler", steps=STEPS), self.network.schedule.config
        stepper = build_stepper(sampler, schedule, self.network.path, self.network.steps_of(shape, STEPS))
        samples, _ = sample({"main": self.network}, conditioning, guidance, stepper, STEPS, SEEDS, shape, start)
        return samples, (self.network.to_pixels(samples) / 2 + 0.5).clamp(0, 1)

    def theirs(self, canvas: Canvas | None = None, **settings: Any) -> tuple[torch.Tensor, torch.Tensor]:
        extent = {"height": 32, "width": 32} if canvas is None else {"height": canvas.height, "width": canvas.width}
        noise, _ = initial_noise(SEEDS, self.network.shape_of(canvas))
        common = {
            "prompt": [*PROMPTS],
            "num_inference_steps": STEPS,
            **self.t5,
            **extent,
            # Lists are given away: Z-Image's pipeline writes into them.
            **{key: [*value] if isinstance(value, list) else value for key, value in settings.items()},
        }
        if isinstance(self.pipeline, ChromaPipeline):
            common |= masking(self.pipeline, common)
        if isinstance(self.pipeline, Flux2KleinPipeline) and (negative := common.pop("negative_prompt", None)):
            common["negative_prompt_embeds"] = self.pipeline.encode_prompt(negative)[0]
        if self.dtype == torch.float32:
            common["generator"] = [torch.Generator().manual_seed(seed) for seed in SEEDS]
        else:  # torch draws other numbers in half precision
            single = isinstance(self.pipeline, ZImagePipeline)  # between two calls of the network
            # FLUX.2's packs them itself.
            given = noise if isinstance(self.pipeline, PATCHES) else self.packed(noise)
            common["latents"] = given.to(torch.float32 if single else self.dtype)
        latents: list[torch.Tensor] = []

        def keep(_pipeline: Any, _step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            latents.append(tensors["latents"])
            return tensors

        images = self.pipeline(**common, output_type="pt", callback_on_step_end=keep).images
        return self.unpacked(latents[-1], noise.shape).float(), images.float()

    def packed(self, samples: torch.Tensor) -> torch.Tensor:
        if not isinstance(self.pipeline, PACKED):
            return samples
        return self.pipeline._pack_latents(samples, *samples.shape)

    def unpacked(self, latents: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        if isinstance(self.pipeline, PATCHES):
            return latents.transpose(1, 2).reshape(shape)
        if not isinstance(self.pipeline, PACKED):
            return latents
        unpacked = self.pipeline._unpack_latents(latents, 2 * shape[2], 2 * shape[3], 2)
        return unpacked.reshape(shape)  # without the frames of a video


@pytest.fixture(scope="module")
def pair_of(flows_folder: Path) -> Callable[..., Pair]:
    """Loads a pair once, by the folder's name and the precision."""
    return cache(lambda name, dtype="float32": Pair(flows_folder / name, dtype))


def assert_equal(mine: tuple[torch.Tensor, ...], other: tuple[torch.Tensor, ...], tolerance: float = 1e-4) -> None:
    for a, b in zip(mine, other, strict=True):
        assert a.shape == b.shape
        assert float((a - b).abs().max()) < tolerance
    assert mine[1].std() > 0.01  # an image, not one colour


NEGATIVE = {"method": "negative", "scale": 5.0, "negative_prompt": WORSE}


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
    ("name", "kind", "guided"),
    [
        ("z_image", ZImageImg2ImgPipeline, {"guidance_scale": 4.0}),
        ("sd3", StableDiffusion3Img2ImgPipeline, {"guidance_scale": 5.0}),
        ("sd3_shifting", StableDiffusion3Img2ImgPipeline, {"guidance_scale": 5.0}),
        ("flux", FluxImg2ImgPipeline, {"true_cfg_scale": 5.0, "guidance_scale": 3.5}),
        ("qwen_image", QwenImageImg2ImgPipeline, {"true_cfg_scale": 5.0}),
    ],
)
def test_image_to_image_is_that_of_the_pipeline(
    pair_of: Callable[..., Pair], name: str, kind: Any, guided: dict[str, float]
) -> None:
    pair = pair_of(name)
    images = torch.randint(0, 256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    latents = pair.network.to_samples(images)
    mine = pair.ours(Canvas(width=32, height=32), FromImages(latents, 0.5), **NEGATIVE)
    pipeline = kind(**{part: own for part, own in pair.pipeline.components.items() if own is not None})
    pipeline.set_progress_bar_config(disable=True)
    pixels = pipeline(
        prompt=[*PROMPTS],
        negative_prompt=[WORSE] * 2,
        image=latents,  # with the channels of latents it is taken as such
        strength=0.5,
        height=32,
        width=32,
        num_inference_steps=STEPS,
        **pair.t5,
        # Here an image's start has random numbers of its own.
        generator=[torch.Generator().manual_seed(seed + IMAGE_TO_IMAGE_SEED) for seed in SEEDS],
        output_type="pt",
        **guided,
    ).images
    assert float((mine[1] - pixels).abs().max()) < 1e-4


@pytest.mark.parametrize(
    ("name", "ours", "theirs"),
    [
        ("flux2_klein", NEGATIVE, {"guidance_scale": 5.0, "negative_prompt": [WORSE] * 2}),
        ("flux2", {"embedded_guidance": 9.0}, {"guidance_scale": 9.0}),
    ],
)
def test_image_to_image_of_flux_2_is_the_pipeline_begun_in_its_middle(
    pair_of: Callable[..., Pair], name: str, ours: dict[str, Any], theirs: dict[str, Any]
) -> None:
    """diffusers has no pipeline for it: those of FLUX.2 that take an image have the network read it as well."""
    pair, canvas = pair_of(name), Canvas(width=32, height=32)
    images = torch.randint(0, 256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    latents, levels = pair.network.to_samples(images), np.linspace(1, 1 / STEPS, STEPS)
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(pair.pipeline.scheduler.config)
    scheduler.set_timesteps(sigmas=levels, mu=compute_empirical_mu(latents[0, 0].numel(), STEPS))
    noise, _ = initial_noise([seed + IMAGE_TO_IMAGE_SEED for seed in SEEDS], latents.shape[1:])
    start = scheduler.scale_noise(latents, scheduler.timesteps[STEPS // 2].repeat(2), noise)
    mine = pair.ours(canvas, FromImages(latents, 0.5), **ours)
    assert_equal(mine, pair.theirs(canvas, latents=start, sigmas=levels[STEPS // 2 :], **theirs))


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
