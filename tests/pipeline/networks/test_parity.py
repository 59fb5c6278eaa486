"""The project's images are those of diffusers' own pipelines with the same weights, seeds and settings."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSDEScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    LMSDiscreteScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UniPCMultistepScheduler,
)

from pipeline.guidance.algebra import EMPTY, NEGATIVE, Guidance, Term
from pipeline.guidance.postprocess.results import Rescale
from pipeline.networks.checkpoints import locate
from pipeline.networks.denoisers.unet import load_network
from pipeline.networks.text.text_encoder import load_text_encoder
from pipeline.prompting.text_settings import TextSettings
from pipeline.sampling.sampler import sample
from pipeline.sampling.starts import IMAGE_TO_IMAGE_SEED, FromImages
from pipeline.sampling.steppers import build_stepper
from pipeline.study.sampler import Canvas, Sampler

CPU = torch.device("cpu")
STEPS = 4
PROMPT, WORSE = "1person, blue hair, smile", "worst quality, lowres"
SEEDS = [3, 4]
# What a user of diffusers would write for each sampler of this project.
THEIRS = {
    "ddim": (DDIMScheduler, {"set_alpha_to_one": True, "clip_sample": False}),
    "euler": (EulerDiscreteScheduler, {}),
    "euler_ancestral": (EulerAncestralDiscreteScheduler, {}),
    "heun": (HeunDiscreteScheduler, {}),
    "dpmsolver++": (DPMSolverMultistepScheduler, {}),
    "dpmsolver++_2m_sde": (DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}),
    "dpmsolver++_sde": (DPMSolverSDEScheduler, {"noise_sampler_seed": SEEDS}),
    "unipc": (UniPCMultistepScheduler, {}),
    "lms": (LMSDiscreteScheduler, {}),
}
FLAGS = {"native": {}, "karras": {"use_karras_sigmas": True}, "exponential": {"use_exponential_sigmas": True}}
# A sampler knows nothing of the network's kind: SDXL goes through each once, SD 1.x through all noise levels as well.
CASES = [
    *(("sd", name, "native", spacing) for name in THEIRS for spacing in ("leading", "trailing")),
    *(
        ("sd", name, levels, None)
        for name in ("euler", "heun", "dpmsolver++", "dpmsolver++_2m_sde", "dpmsolver++_sde", "unipc", "lms")
        for levels in ("karras", "exponential")
    ),
    ("sd2", "ddim", "native", "leading"),
    ("sd2", "dpmsolver++", "karras", None),
    *(("sdxl", name, "native", "leading") for name in THEIRS),
]


@pytest.fixture(scope="module", params=["sd", "sd2", "sdxl"])
def pair(request, pipelines_folder):
    return pair_of(pipelines_folder / request.param)


def pair_of(folder):
    """diffusers' pipeline and this project's parts, of the same folder."""
    kind = StableDiffusionXLPipeline if (folder / "text_encoder_2").is_dir() else StableDiffusionPipeline
    theirs = kind.from_pretrained(folder, use_safetensors=True)
    theirs.set_progress_bar_config(disable=True)
    checkpoint = locate(str(folder))
    network = load_network(checkpoint, CPU)
    return theirs, network, load_text_encoder(checkpoint, CPU, TextSettings(syntax="plain", underscores="kept"))


def ours(pair, setting, scale, negative, canvas=None, start=None, post=()):
    _, network, encoder = pair
    texts = {"prompt": [PROMPT] * len(SEEDS), "empty": [""] * len(SEEDS), "negative": [negative or ""] * len(SEEDS)}
    reference, unused = (NEGATIVE, "empty") if negative else (EMPTY, "negative")
    texts.pop(unused)
    conditioning = encoder.encode_together(texts, references=("empty", "negative"))
    added = network.added_conditions(len(SEEDS), canvas)
    conditioning = {text: told.adding(added) for text, told in conditioning.items()}
    stepper = build_stepper(setting, network.schedule.config)
    shape = network.shape_of(canvas)
    samples, _ = sample(
        {"main": network},
        conditioning,
        Guidance((Term(reference, scale),), post),
        stepper,
        STEPS,
        SEEDS,
        shape,
        start,
    )
    return samples, network.to_images(samples)


def theirs(pair, setting, scale, negative, canvas=None, **more):
    pipeline = pair[0]
    kind, options = THEIRS[setting.scheduler]
    flags = FLAGS[setting.levels] if setting.scheduler != "ddim" else {}
    spacing = setting.spacing or "linspace"
    pipeline.scheduler = kind.from_config(pair[1].schedule.config, timestep_spacing=spacing, **options, **flags)
    extent = {} if canvas is None else {"height": canvas.height, "width": canvas.width}
    latents = []

    def keep(_pipeline, _step, _timestep, tensors):
        latents.append(tensors["latents"])
        return tensors

    images = pipeline(
        [PROMPT] * len(SEEDS),
        negative_prompt=None if negative is None else [negative] * len(SEEDS),
        guidance_scale=scale,
        num_inference_steps=STEPS,
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
        output_type="np",
        callback_on_step_end=keep,
        **extent,
        **more,
    ).images
    return latents[-1], torch.from_numpy(images).permute(0, 3, 1, 2)


def assert_equal(mine, other):
    torch.testing.assert_close(mine[0], other[0], atol=1e-4, rtol=1e-4)
    # uint8 against float: half a level of rounding.
    assert float((mine[1] / 255 - other[1]).abs().max()) < 0.5 / 255 + 1e-4


@pytest.mark.parametrize(("pair", "scheduler", "levels", "spacing"), CASES, indirect=["pair"])
def test_images_are_those_of_the_pipeline(pair, scheduler, levels, spacing):
    setting = Sampler(scheduler=scheduler, steps=STEPS, levels=levels, spacing=spacing)
    assert_equal(ours(pair, setting, 5.0, WORSE), theirs(pair, setting, 5.0, WORSE))


@pytest.mark.parametrize("scheduler", ["ddim", "euler", "euler_ancestral", "dpmsolver++"])
def test_an_sdxl_that_predicts_velocities_and_ends_without_signal_is_that_of_the_pipeline(
    scheduler, pipelines_folder, tmp_path
):
    """As NoobAI XL v-pred: the first step begins in pure noise."""
    shutil.copytree(pipelines_folder / "sdxl", tmp_path / "sdxl")
    config = tmp_path / "sdxl" / "scheduler" / "scheduler_config.json"
    changes = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    config.write_text(json.dumps(json.loads(config.read_text("utf-8")) | changes), "utf-8")
    pair = pair_of(tmp_path / "sdxl")
    setting = Sampler(scheduler=scheduler, steps=STEPS, spacing="trailing")
    assert_equal(ours(pair, setting, 5.0, WORSE), theirs(pair, setting, 5.0, WORSE))


def test_classifier_free_guidance_is_that_of_the_pipeline(pair):
    setting = Sampler(scheduler="euler", steps=STEPS, spacing="leading")
    assert_equal(ours(pair, setting, 7.5, None), theirs(pair, setting, 7.5, None))


@pytest.mark.parametrize("phi", [0.5, 1.0])
def test_rescale_is_that_of_the_pipeline(pair, phi):
    setting = Sampler(scheduler="ddim", steps=STEPS, spacing="leading")
    mine = ours(pair, setting, 7.5, WORSE, post=Rescale(name="rescale", phi=phi))
    assert_equal(mine, theirs(pair, setting, 7.5, WORSE, guidance_rescale=phi))


@pytest.mark.parametrize("clip_skip", [1, 2])
def test_clip_skip_is_that_of_the_pipeline(pair, clip_skip):
    pipeline, network, encoder = pair
    if not hasattr(pipeline.text_encoder, "text_model"):
        # diffusers 0.42 looks for the final norm where transformers before 5.6 had it, and fails without.
        object.__setattr__(pipeline.text_encoder, "text_model", pipeline.text_encoder)
    skipping = replace(encoder, settings=encoder.settings.model_copy(update={"clip_skip": clip_skip}))
    setting = Sampler(scheduler="euler", steps=STEPS, spacing="leading")
    # Unguided, because diffusers skips layers for the prompt alone and reads the negative prompt without.
    mine = ours((pipeline, network, skipping), setting, 1.0, None)
    assert_equal(mine, theirs(pair, setting, 1.0, None, clip_skip=clip_skip))


def test_a_wide_canvas_is_that_of_the_pipeline(pair):
    setting = Sampler(scheduler="ddim", steps=STEPS, spacing="leading")
    canvas = Canvas(width=48, height=24)
    mine = ours(pair, setting, 5.0, WORSE, canvas)
    assert mine[1].shape[-2:] == (24, 48)
    assert_equal(mine, theirs(pair, setting, 5.0, WORSE, canvas))


def test_image_to_image_is_that_of_the_pipeline(pipelines_folder):
    checkpoint = locate(str(pipelines_folder / "sd"))
    network = load_network(checkpoint, CPU)
    encoder = load_text_encoder(checkpoint, CPU, TextSettings(syntax="plain", underscores="kept"))
    setting = Sampler(scheduler="ddim", steps=STEPS, spacing="leading")
    latents = network.to_samples(torch.randint(0, 256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(0)))
    mine = ours((None, network, encoder), setting, 5.0, WORSE, start=FromImages(latents, 0.5))
    pipeline = StableDiffusionImg2ImgPipeline.from_pretrained(pipelines_folder / "sd", use_safetensors=True)
    pipeline.set_progress_bar_config(disable=True)
    kind, options = THEIRS["ddim"]
    pipeline.scheduler = kind.from_config(network.schedule.config, timestep_spacing="leading", **options)
    other = pipeline(
        [PROMPT] * 2,
        image=latents,  # with the channels of latents it is taken as such
        strength=0.5,
        negative_prompt=[WORSE] * 2,
        guidance_scale=5.0,
        num_inference_steps=STEPS,
        # Here an image's start comes from its own seed, and diffusers knows nothing of where a start comes from.
        generator=[torch.Generator().manual_seed(seed + IMAGE_TO_IMAGE_SEED) for seed in SEEDS],
        output_type="latent",
    ).images
    torch.testing.assert_close(mine[0], other, atol=1e-4, rtol=1e-4)
