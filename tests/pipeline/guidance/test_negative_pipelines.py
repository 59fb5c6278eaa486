"""Images of SLD and SEGA are those of diffusers' own pipelines with the same weights, seeds and settings."""

import pytest
import torch
from diffusers import DDIMScheduler
from diffusers.pipelines.deprecated.semantic_stable_diffusion import SemanticStableDiffusionPipeline
from diffusers.pipelines.deprecated.stable_diffusion_safe import StableDiffusionPipelineSafe

from pipeline.guidance.algebra import EMPTY, NEGATIVE, Guidance, Term
from pipeline.guidance.postprocess.negatives import SEGA, SafeLatent
from pipeline.networks.checkpoints import locate
from pipeline.networks.denoisers.unet import load_network
from pipeline.networks.text.text_encoder import load_text_encoder
from pipeline.prompting.text_settings import TextSettings
from pipeline.sampling.sampler import sample
from pipeline.sampling.steppers import build_stepper
from pipeline.study.sampler import Sampler

CPU = torch.device("cpu")
STEPS, SCALE = 4, 4.0
PROMPT, CONCEPT = "1person, blue hair, smile", "worst quality, lowres"
SEEDS = [3, 4]


@pytest.fixture(scope="module")
def folder(pipelines_folder):
    return pipelines_folder / "sd"


def ours(folder, negative, post):
    checkpoint = locate(str(folder))
    network = load_network(checkpoint, CPU)
    encoder = load_text_encoder(checkpoint, CPU, TextSettings(syntax="plain", underscores="kept"))
    texts = {"prompt": [PROMPT] * 2, "empty": [""] * 2, "negative": [CONCEPT] * 2}
    told = encoder.encode_together(texts, references=("empty", "negative"))
    stepper = build_stepper(Sampler(scheduler="ddim", steps=STEPS, spacing="leading"), network.schedule.config)
    guidance = Guidance((Term(EMPTY, SCALE), Term(NEGATIVE, negative)), post)
    return sample({"main": network}, told, guidance, stepper, STEPS, SEEDS, network.shape_of(None))[0]


def theirs(folder, kind, **settings):
    pipeline = kind.from_pretrained(folder, use_safetensors=True, safety_checker=None, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = DDIMScheduler.from_config(
        pipeline.scheduler.config, timestep_spacing="leading", set_alpha_to_one=True, clip_sample=False
    )
    if kind is StableDiffusionPipelineSafe:
        pipeline.safety_concept = CONCEPT
    latents = []
    pipeline(
        [PROMPT] * 2,
        num_inference_steps=STEPS,
        guidance_scale=SCALE,
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
        callback=lambda _step, _timestep, now: latents.append(now),
        **settings,
    )
    return latents[-1]


def test_safe_latent_diffusion_is_that_of_the_pipeline(folder):
    post = SafeLatent(name="sld", strength=20.0, threshold=0.01, warmup=0.25, momentum=0.3, keep=0.4)
    settings = {
        "sld_guidance_scale": 20.0,
        "sld_threshold": 0.01,
        "sld_warmup_steps": 1,
        "sld_momentum_scale": 0.3,
        "sld_mom_beta": 0.4,
    }
    found = ours(folder, 1 + SCALE, post)
    other = theirs(folder, StableDiffusionPipelineSafe, **settings)
    torch.testing.assert_close(found, other, atol=1e-4, rtol=1e-4)
    assert (found - ours(folder, 1.0, ())).abs().max() > 1e-2


def test_semantic_guidance_is_that_of_the_pipeline(folder):
    edit = 5.0
    settings = {
        "editing_prompt": [CONCEPT],
        "reverse_editing_direction": True,
        "edit_guidance_scale": edit,
        "edit_warmup_steps": 1,
        "edit_threshold": 0.9,
        "edit_momentum_scale": 0.1,
        "edit_mom_beta": 0.4,
    }
    found = ours(folder, 1 + edit, SEGA(name="sega", warmup=0.25))
    other = theirs(folder, SemanticStableDiffusionPipeline, **settings)
    torch.testing.assert_close(found, other, atol=1e-4, rtol=1e-4)
    assert (found - ours(folder, 1.0, ())).abs().max() > 1e-2
