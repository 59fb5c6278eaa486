"""Images of flow-matching families that start from images are those of diffusers' own pipelines."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    ChromaImg2ImgPipeline,
    ChromaPipeline,
    FlowMatchEulerDiscreteScheduler,
    FluxImg2ImgPipeline,
    FluxInpaintPipeline,
    QwenImageImg2ImgPipeline,
    QwenImageInpaintPipeline,
    StableDiffusion3Img2ImgPipeline,
    ZImageImg2ImgPipeline,
)
from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu
from parity_pairs import NEGATIVE, PROMPTS, SEEDS, STEPS, WORSE, Pair, assert_equal, masking

from pipeline.sampling.starts import IMAGE_TO_IMAGE_SEED, FromImages, Inpainting, initial_noise
from pipeline.study.sampler import Canvas


class MaskedChroma(ChromaImg2ImgPipeline):
    """Its pipeline with the mask of the one for texts alone: it makes numbers of a boolean one, and reads padding."""

    _prepare_attention_mask = ChromaPipeline._prepare_attention_mask


def pipeline_of(kind: Any, pair: Pair) -> Any:
    """Another pipeline of the same parts."""
    pipeline = kind(**{part: own for part, own in pair.pipeline.components.items() if own is not None})
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def asked(pair: Pair) -> dict[str, Any]:
    """What a pipeline that starts from images is told besides them."""
    # Here the noise of an image's start is drawn separately.
    generators = [torch.Generator().manual_seed(seed + IMAGE_TO_IMAGE_SEED) for seed in SEEDS]
    sizes = {"height": 32, "width": 32, "num_inference_steps": STEPS}
    return {**sizes, **pair.t5, "generator": generators, "output_type": "pt"}


@pytest.mark.parametrize(
    ("name", "kind", "guided"),
    [
        ("z_image", ZImageImg2ImgPipeline, {"guidance_scale": 4.0}),
        ("sd3", StableDiffusion3Img2ImgPipeline, {"guidance_scale": 5.0}),
        ("sd3_shifting", StableDiffusion3Img2ImgPipeline, {"guidance_scale": 5.0}),
        ("flux", FluxImg2ImgPipeline, {"true_cfg_scale": 5.0, "guidance_scale": 3.5}),
        ("qwen_image", QwenImageImg2ImgPipeline, {"true_cfg_scale": 5.0}),
        ("chroma", MaskedChroma, {"guidance_scale": 5.0}),
    ],
)
def test_image_to_image_is_that_of_the_pipeline(
    pair_of: Callable[..., Pair], name: str, kind: Any, guided: dict[str, float]
) -> None:
    pair = pair_of(name)
    images = torch.randint(0, 256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    latents = pair.network.to_samples(images)
    mine = pair.ours(Canvas(width=32, height=32), FromImages(latents, 0.5), **NEGATIVE)
    pipeline = pipeline_of(kind, pair)
    # With as many channels as latents an image is taken as such, for which Chroma's pipeline does not know the number.
    pipeline.image_processor.register_to_config(vae_latent_channels=latents.shape[1])
    texts = {"prompt": [*PROMPTS], "negative_prompt": [WORSE] * 2}
    pixels = pipeline(
        **(masking(pipeline, texts) if name == "chroma" else texts),
        image=latents,
        strength=0.5,
        **asked(pair),
        **guided,
    ).images
    assert float((mine[1] - pixels).abs().max()) < 1e-4


@pytest.mark.parametrize("strength", [0.5, 1.0])
@pytest.mark.parametrize(
    ("name", "kind", "guided"),
    [
        # Not SD3: its pipeline puts back what is outside for latents of 16 channels alone, and a small one's are fewer.
        ("flux", FluxInpaintPipeline, {"true_cfg_scale": 5.0, "guidance_scale": 3.5}),
        ("qwen_image", QwenImageInpaintPipeline, {"true_cfg_scale": 5.0}),
    ],
)
def test_latents_kept_outside_a_mask_are_those_of_the_pipeline(
    pair_of: Callable[..., Pair], name: str, kind: Any, guided: dict[str, float], strength: float
) -> None:
    pair = pair_of(name)
    images = torch.randint(0, 256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    mask = torch.zeros(2, 1, 32, 32)  # which cuts latents, 2x2 pixels here
    mask[0, :, 5:23, 9:28] = 1
    mask[1, :, :17, 3:19] = 1
    latents = pair.network.to_samples(images)
    start = Inpainting(latents, strength, mask=pair.network.to_mask(mask))
    mine = pair.ours(Canvas(width=32, height=32), start, **NEGATIVE)
    pipeline = pipeline_of(kind, pair)
    pixels = pipeline(
        prompt=[*PROMPTS],
        negative_prompt=[WORSE] * 2,
        image=latents,  # with the channels of latents it is taken as such
        mask_image=mask,
        masked_image_latents=latents,
        strength=strength,
        **asked(pair),
        **guided,
    ).images
    assert float((mine[1] - pixels).abs().max()) < 1e-4


@pytest.mark.parametrize(
    ("name", "ours", "theirs"),
    [
        ("flux2_klein", NEGATIVE, {"guidance_scale": 5.0, "negative_prompt": [WORSE] * 2}),
        ("flux2", {"embedded_guidance": 9.0}, {"guidance_scale": 9.0}),
        ("lumina2", NEGATIVE, {"guidance_scale": 5.0, "negative_prompt": [WORSE] * 2}),
    ],
)
def test_image_to_image_of_flux_2_and_lumina_2_is_the_pipeline_begun_in_its_middle(
    pair_of: Callable[..., Pair], name: str, ours: dict[str, Any], theirs: dict[str, Any]
) -> None:
    """diffusers has no pipeline for it: Lumina 2's takes no image, and FLUX.2's have the network read it as well."""
    pair, canvas = pair_of(name), Canvas(width=32, height=32)
    images = torch.randint(0, 256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    latents, levels = pair.network.to_samples(images), np.linspace(1, 1 / STEPS, STEPS)
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(pair.pipeline.scheduler.config)
    shifts = scheduler.config.use_dynamic_shifting
    scheduler.set_timesteps(sigmas=levels, mu=compute_empirical_mu(latents[0, 0].numel(), STEPS) if shifts else None)
    noise, _ = initial_noise([seed + IMAGE_TO_IMAGE_SEED for seed in SEEDS], latents.shape[1:])
    start = scheduler.scale_noise(latents, scheduler.timesteps[STEPS // 2].repeat(2), noise)
    mine = pair.ours(canvas, FromImages(latents, 0.5), **ours)
    assert_equal(mine, pair.theirs(canvas, latents=start, sigmas=levels[STEPS // 2 :], **theirs))
