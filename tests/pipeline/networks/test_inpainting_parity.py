"""Inpainted images are those of diffusers' own pipelines with the same weights, seeds and masks."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    StableDiffusionInpaintPipeline,
    StableDiffusionXLInpaintPipeline,
)
from safetensors.torch import load_file, save_file

from pipeline.guidance.algebra import NEGATIVE, Guidance, Term
from pipeline.networks.checkpoints import locate
from pipeline.networks.text.text_encoder import load_text_encoder
from pipeline.prompting.text_settings import TextSettings
from pipeline.sampling.sampler import sample
from pipeline.sampling.starts import IMAGE_TO_IMAGE_SEED, Inpainting
from pipeline.sampling.steppers import build_stepper
from pipeline.study.sampler import Sampler

CPU = torch.device("cpu")
STEPS, SCALE, SEEDS = 4, 5.0, [3, 4]
PROMPT, WORSE = "1person, blue hair, smile", "worst quality, lowres"
PIPELINES = {"sd": StableDiffusionInpaintPipeline, "sdxl": StableDiffusionXLInpaintPipeline}
THEIRS = {
    "ddim": (DDIMScheduler, {"set_alpha_to_one": True, "clip_sample": False}),
    "euler": (EulerDiscreteScheduler, {}),
    "heun": (HeunDiscreteScheduler, {}),
    "dpmsolver++": (DPMSolverMultistepScheduler, {}),
}
IMAGES = torch.randint(0, 256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
# Not whole latents, which are 2x2 pixels here.
MASK = torch.zeros(2, 1, 32, 32)
MASK[0, :, 5:23, 9:28] = 1
MASK[1, :, :17, 3:19] = 1


@dataclass
class Inpainted:
    """A folder's networks here, and its pipeline in diffusers."""

    folder: Path
    kind: str

    def __post_init__(self) -> None:
        checkpoint = locate(str(self.folder))
        self.network = checkpoint.family.load(checkpoint, CPU)
        self.encoder = load_text_encoder(checkpoint, CPU, TextSettings(syntax="plain", underscores="kept"))
        self.pipeline: Any = PIPELINES[self.kind].from_pretrained(self.folder, use_safetensors=True)
        self.pipeline.set_progress_bar_config(disable=True)

    def ours(self, scheduler: str, start: Inpainting, around: torch.Tensor | None = None) -> torch.Tensor:
        texts = {"prompt": [PROMPT] * 2, "negative": [WORSE] * 2}
        conditioning = self.encoder.encode_together(texts, references=("negative",))
        added = self.network.added_conditions(2, None) | ({} if around is None else {"around": around})
        conditioning = {text: told.adding(added) for text, told in conditioning.items()}
        setting = Sampler(scheduler=scheduler, steps=STEPS, spacing="leading")
        stepper = build_stepper(setting, self.network.schedule.config)
        guidance = Guidance((Term(NEGATIVE, SCALE),))
        samples, _ = sample(
            {"main": self.network}, conditioning, guidance, stepper, STEPS, SEEDS, self.network.shape_of(None), start
        )
        return samples

    def theirs(self, scheduler: str, samples: torch.Tensor, strength: float, masked: torch.Tensor) -> torch.Tensor:
        kind, options = THEIRS[scheduler]
        self.pipeline.scheduler = kind.from_config(self.network.schedule.config, timestep_spacing="leading", **options)
        found: torch.Tensor = self.pipeline(
            [PROMPT] * 2,
            negative_prompt=[WORSE] * 2,
            image=samples,  # with the channels of latents it is taken as such
            mask_image=MASK,
            masked_image_latents=masked,
            height=32,
            width=32,
            strength=strength,
            guidance_scale=SCALE,
            num_inference_steps=STEPS,
            generator=[torch.Generator().manual_seed(seed + IMAGE_TO_IMAGE_SEED) for seed in SEEDS],
            output_type="latent",
        ).images
        return found


@pytest.fixture(scope="module")
def plain(pipelines_folder: Path) -> Callable[[str], Inpainted]:
    return lambda kind: Inpainted(pipelines_folder / kind, kind)


def reading_masks(source: Path, folder: Path) -> Path:
    """A copy of a pipeline whose UNet reads nine channels, as those that were trained to inpaint."""
    shutil.copytree(source, folder)
    weights = folder / "unet/diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    first = tensors["conv_in.weight"]
    more = torch.randn(first.shape[0], 5, *first.shape[2:], generator=torch.Generator().manual_seed(1))
    tensors["conv_in.weight"] = torch.cat([first, more * first.std()], 1).contiguous()
    save_file(tensors, weights, {"format": "pt"})
    config = folder / "unet/config.json"
    config.write_text(json.dumps(json.loads(config.read_text("utf-8")) | {"in_channels": 9}), "utf-8")
    return folder


@pytest.mark.parametrize(
    ("kind", "scheduler", "strength"),
    [
        *(("sd", scheduler, 0.5) for scheduler in THEIRS),
        ("sd", "euler", 1.0),
        ("sd", "ddim", 1.0),
        ("sdxl", "euler", 1.0),
    ],
)
def test_latents_kept_outside_a_mask_are_those_of_the_pipeline(
    plain: Callable[[str], Inpainted], kind: str, scheduler: str, strength: float
) -> None:
    pair = plain(kind)
    samples = pair.network.to_samples(IMAGES)
    mine = pair.ours(scheduler, Inpainting(samples, strength, mask=pair.network.to_mask(MASK)))
    torch.testing.assert_close(mine, pair.theirs(scheduler, samples, strength, samples), atol=1e-4, rtol=1e-4)
    kept = (pair.network.to_mask(MASK) == 0).expand_as(mine)
    torch.testing.assert_close(mine[kept], samples[kept], atol=0, rtol=0)


@pytest.mark.parametrize(("kind", "strength"), [("sd", 1.0), ("sd", 0.5), ("sdxl", 1.0)])
def test_a_unet_that_reads_a_mask_is_that_of_the_pipeline(
    pipelines_folder: Path, tmp_path: Path, kind: str, strength: float
) -> None:
    pair = Inpainted(reading_masks(pipelines_folder / kind, tmp_path / kind), kind)
    samples, around = pair.network.to_samples(IMAGES), pair.network.around(IMAGES, MASK)
    masked = pair.network.latents.encode((IMAGES / 127.5 - 1) * (MASK < 0.5))  # grey inside, as diffusers has it
    mine = pair.ours("euler", Inpainting(samples, strength), around)
    torch.testing.assert_close(mine, pair.theirs("euler", samples, strength, masked), atol=1e-4, rtol=1e-4)
    other = pair.ours("euler", Inpainting(samples, strength), pair.network.around(IMAGES, 1 - MASK))
    assert float((mine - other).abs().max()) > 0.01, "the mask is read"
