"""A family along rectified flow twice: diffusers' pipeline and this project's parts, of one folder."""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    ChromaPipeline,
    Flux2KleinPipeline,
    Flux2Pipeline,
    FluxPipeline,
    Lumina2Pipeline,
    QwenImagePipeline,
    StableDiffusion3Pipeline,
    ZImagePipeline,
)
from flow_pipelines import T5_LENGTH

from pipeline.generation.arm_guidance import guidance_of
from pipeline.networks.checkpoints import locate
from pipeline.prompting.text_settings import TextSettings
from pipeline.sampling.sampler import sample
from pipeline.sampling.starts import FromImages, initial_noise
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


def assert_equal(mine: tuple[torch.Tensor, ...], other: tuple[torch.Tensor, ...], tolerance: float = 1e-4) -> None:
    for a, b in zip(mine, other, strict=True):
        assert a.shape == b.shape
        assert float((a - b).abs().max()) < tolerance
    assert mine[1].std() > 0.01  # an image, not one colour


NEGATIVE = {"method": "negative", "scale": 5.0, "negative_prompt": WORSE}
