"""Images with references are those of diffusers' own pipelines with the same adapter, encoder, seeds and images."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
from ip_adapters import save_adapter, save_encoder, save_images, unet_of
from PIL import Image as PillowImage

from pipeline.guidance.algebra import NEGATIVE, Guidance, Term
from pipeline.networks.checkpoints import locate
from pipeline.networks.image_prompt import ImagePrompt, ImageReader, load_attention
from pipeline.networks.text.text_encoder import load_text_encoder
from pipeline.prompting.text_settings import TextSettings
from pipeline.sampling.sampler import sample
from pipeline.sampling.steppers import build_stepper
from pipeline.study.sampler import Sampler

CPU = torch.device("cpu")
STEPS, SEEDS = 3, [3, 4]
PROMPT, WORSE = "1person, blue hair, smile", "worst quality, lowres"
PIPELINES = {"sd": StableDiffusionPipeline, "sdxl": StableDiffusionXLPipeline}


class Pair:
    """A folder's networks with an adapter here, and its pipeline with the same in diffusers."""

    def __init__(self, folder: Path, kind: str, adapter: str, root: Path):
        checkpoint = locate(str(folder))
        self.network = checkpoint.family.load(checkpoint, CPU)
        self.encoder = load_text_encoder(checkpoint, CPU, TextSettings(syntax="plain", underscores="kept"))
        self.images = save_images(root / "images")
        file = save_adapter(root / "models/adapter.safetensors", unet_of(folder), adapter)
        encoder = save_encoder(root / "models/image_encoder")
        self.reader = ImageReader(file, encoder, self.network.unet, CPU)
        self.attention = load_attention(self.network.unet, file, CPU)
        self.pipeline: Any = PIPELINES[kind].from_pretrained(folder, use_safetensors=True)
        self.pipeline.load_ip_adapter(root, subfolder="models", weight_name=file.name)
        self.pipeline.set_progress_bar_config(disable=True)
        self.pipeline.scheduler = DDIMScheduler.from_config(
            self.network.schedule.config, timestep_spacing="leading", set_alpha_to_one=True, clip_sample=False
        )

    def ours(
        self, scale: float, strength: float | None, images: int = 2, layers: tuple[str, ...] | None = None
    ) -> torch.Tensor:
        texts = {"prompt": [PROMPT] * 2} | ({} if scale == 1 else {"negative": [WORSE] * 2})
        conditioning = self.encoder.encode_together(texts, references=("negative",))
        added, network = self.network.added_conditions(2, None), self.network
        conditioning = {text: told.adding(added) for text, told in conditioning.items()}
        if strength is not None:
            shown, empty = self.reader.tokens(self.images[:images])
            network = network.reading(ImagePrompt.of(network.unet, self.attention, strength, layers))
            conditioning = {
                text: told.adding({"image_tokens": (shown if text == "prompt" else empty).expand(2, -1, -1, -1)})
                for text, told in conditioning.items()
            }
        setting = Sampler(scheduler="ddim", steps=STEPS, spacing="leading")
        guidance = Guidance(() if scale == 1 else (Term(NEGATIVE, scale),))
        stepper = build_stepper(setting, network.schedule.config)
        found, _ = sample({"main": network}, conditioning, guidance, stepper, STEPS, SEEDS, network.shape_of(None))
        return found

    def theirs(self, scale: float, strength: Any, images: list[PillowImage.Image]) -> torch.Tensor:
        self.pipeline.set_ip_adapter_scale(strength)
        found: torch.Tensor = self.pipeline(
            [PROMPT] * 2,
            negative_prompt=None if scale == 1 else [WORSE] * 2,
            ip_adapter_image=[images],
            height=32,
            width=32,
            guidance_scale=scale,
            num_inference_steps=STEPS,
            generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
            output_type="latent",
        ).images
        return found


@pytest.fixture(scope="module", params=[("sd", "plain"), ("sd", "plus"), ("sdxl", "plain"), ("sdxl", "plus")])
def pair(request: pytest.FixtureRequest, pipelines_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    kind, adapter = request.param
    return Pair(pipelines_folder / kind, kind, adapter, tmp_path_factory.mktemp(f"{kind}-{adapter}"))


@pytest.mark.parametrize("scale", [1.0, 5.0])
@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_latents_with_two_reference_images_are_those_of_the_pipeline(pair: Pair, scale: float, strength: float) -> None:
    mine = pair.ours(scale, strength)
    torch.testing.assert_close(mine, pair.theirs(scale, strength, pair.images), atol=1e-4, rtol=1e-4)


def test_a_bound_on_layers_is_that_of_the_pipeline(pair: Pair) -> None:
    only_up = pair.ours(5.0, 1.0, images=1, layers=("up_blocks",))
    theirs = pair.theirs(5.0, {"up": 1.0}, pair.images[:1])
    torch.testing.assert_close(only_up, theirs, atol=1e-4, rtol=1e-4)
    assert float((only_up - pair.ours(5.0, 1.0, images=1)).abs().max()) > 1e-3, "the other layers read images too"


def test_a_network_without_images_is_as_before_they_were_read(pair: Pair) -> None:
    before = pair.ours(5.0, None)
    read = pair.ours(5.0, 1.0)
    assert float((read - before).abs().max()) > 1e-3, "images are read"
    torch.testing.assert_close(pair.ours(5.0, None), before, atol=0, rtol=0)
    torch.testing.assert_close(pair.ours(5.0, 0.0), before, atol=1e-6, rtol=1e-6)
