"""Transformers of SD3's kind (MM-DiT, arXiv 2403.03206) on pixels: the embedded networks that predict a velocity.

A checkpoint holds `transformer/` and `scheduler/`, and for a main network its text encoder. diffusers' network cuts its
sample into patches itself; its timestep is 1000 t, where x = (1 - t) x0 + t e.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel

from pipeline.errors import InputError, is_out_of_memory
from pipeline.guidance.algebra import Perturbation
from pipeline.guidance.attention_space import NAG, NASA, VSF
from pipeline.guidance.chance import Chance
from pipeline.networks.checkpoints import Checkpoint, interface_of
from pipeline.networks.denoiser import Denoiser
from pipeline.networks.denoisers.unet import DTYPES, rounded
from pipeline.networks.families import PIXEL_FLOW, Family
from pipeline.networks.noise_path import NoisePath
from pipeline.networks.text.conditioning import Conditioning
from pipeline.networks.weights.weight_files import check_complete, check_files, weights_variant
from pipeline.study.loading import Loading
from pipeline.study.sampler import Canvas
from pipeline.study.weaken import DropLayers, Dropout, Lora, LoraFile, LowBits, WeightNoise

_TIMESTEPS = 1000


@dataclass
class PixelTransformer:
    """A transformer with the schedule of its training (pipeline/networks/denoiser.py: SampledNetwork)."""

    transformer: SD3Transformer2DModel
    schedule: FlowMatchEulerDiscreteScheduler
    dtype: torch.dtype = torch.float32
    place: str = ""
    family: Family = PIXEL_FLOW
    latents: None = None

    @property
    def module(self) -> SD3Transformer2DModel:
        return self.transformer

    @property
    def device(self) -> torch.device:
        device: torch.device = self.transformer.device
        return device

    @property
    def path(self) -> NoisePath:
        return self.family.path

    @property
    def prediction_type(self) -> str:
        return "flow_prediction"

    @property
    def factor(self) -> int:
        return 1

    @property
    def interface(self) -> dict[str, Any]:
        return interface_of(self.family, self.transformer.config, "pixels")

    @property
    def sample_shape(self) -> tuple[int, int, int]:
        config = self.transformer.config
        return (config.in_channels, config.sample_size, config.sample_size)

    def shape_of(self, canvas: Canvas | None) -> tuple[int, int, int]:
        """(channels, height, width) of a sample whose image fills `canvas`.

        Raises InputError for a canvas that is not whole patches, or larger than the grid of position embeddings.
        """
        channels, *own = self.sample_shape
        if canvas is None:
            return (channels, own[0], own[1])
        config = self.transformer.config
        patch, most = int(config.patch_size), int(config.pos_embed_max_size) * int(config.patch_size)
        if canvas.width % patch or canvas.height % patch or max(canvas.width, canvas.height) > most:
            raise InputError(
                f"canvas {canvas.width}x{canvas.height} does not fit {self.place}; "
                f"take multiples of {patch} up to {most}"
            )
        return (channels, canvas.height, canvas.width)

    def added_conditions(self, images: int, canvas: Canvas | None) -> dict[str, torch.Tensor]:
        return {}

    @torch.inference_mode()
    def __call__(
        self,
        x: torch.Tensor,
        sigma: float,
        conditioning: Conditioning,
        texts: int = 1,
        damage: Perturbation | None = None,
        timestep: float | None = None,
        chance: Chance | None = None,
        attention: NAG | VSF | NASA | None = None,
    ) -> torch.Tensor:
        """The velocity e - x0 [texts B, C, H, W] for `x` on rectified flow (pipeline/networks/denoiser.py).

        Raises InputError for damage and attention, which know UNets alone.
        """
        if damage is not None:
            raise InputError(f"{damage.kind} damages layers of UNets, and {self.place} is a transformer")
        if attention is not None:
            raise InputError(f"{attention.name} steers cross-attention of UNets, and {self.place} is a transformer")
        known = self.timestep_at(sigma) if timestep is None else timestep
        x = x.to(self.dtype).repeat(texts, 1, 1, 1)
        # As many as samples: the network embeds one for each.
        steps = torch.full((len(x),), known, dtype=torch.float32, device=x.device)
        tokens, pooled = (conditioning[name].to(x) for name in ("tokens", "pooled"))
        output: torch.Tensor = self.transformer(x, tokens, pooled, steps).sample
        return output.float()

    def timestep_at(self, sigma: float) -> float:
        """The timestep 1000 t of the noise level sigma = t / (1 - t)."""
        return _TIMESTEPS * sigma / (1 + sigma)

    @property
    def timesteps(self) -> float:
        return float(_TIMESTEPS)

    def same_schedule(self, other: Denoiser) -> bool:
        # A timestep is t itself, whatever levels training preferred.
        return isinstance(other, PixelTransformer)

    def to_pixels(self, x: torch.Tensor) -> torch.Tensor:
        return x.float()

    def to_images(self, x: torch.Tensor) -> torch.Tensor:
        return rounded(self.to_pixels(x))

    def to_samples(self, images: torch.Tensor) -> torch.Tensor:
        return images.to(self.device).float() / 127.5 - 1


def load_network(
    source: Checkpoint | Path,
    device: torch.device,
    loading: Loading | None = None,
    vae: Checkpoint | None = None,
    latents: None = None,
    how: WeightNoise | Dropout | DropLayers | LowBits | LoraFile | None = None,
) -> PixelTransformer:
    """Load a transformer with its schedule.

    Raises InputError for missing, pickled or damaged weights, for an autoencoder, which networks of pixels have no
    use for, and for a way to weaken it or to save memory that knows UNets alone.
    """
    checkpoint = source if isinstance(source, Checkpoint) else Checkpoint(source, source)
    loading = loading or Loading()
    dtype = DTYPES[loading.dtype]
    if vae is not None:
        raise InputError(f"{checkpoint.path} works on pixels and has no use for an autoencoder; leave model.vae out")
    if how is not None:
        key = "model.lora" if isinstance(how, LoraFile) and not isinstance(how, Lora) else "model.weaken"
        raise InputError(f"{key} knows UNets alone, and {checkpoint.path} is a transformer; leave it out")
    if loading.offload or loading.attention_slicing:
        raise InputError(
            f"model.loading.offload and attention_slicing are for UNets; {checkpoint.path} is a transformer"
        )
    check_files(checkpoint, ("transformer",))
    try:
        transformer, found = SD3Transformer2DModel.from_pretrained(
            checkpoint.path / "transformer",
            use_safetensors=True,
            variant=weights_variant(checkpoint.path, "transformer"),
            torch_dtype=dtype,
            local_files_only=True,
            output_loading_info=True,
        )
        check_complete(transformer, found["missing_keys"], checkpoint.path / "transformer")
        schedule = FlowMatchEulerDiscreteScheduler.from_pretrained(checkpoint.config / "scheduler")
    except InputError:
        raise
    except Exception as error:  # diffusers and safetensors raise many kinds for a damaged folder
        if is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{checkpoint.path} cannot be loaded ({reason}); fetch or train it anew") from None
    transformer = transformer.to(device).eval().requires_grad_(False)
    if loading.compile:
        transformer.compile(dynamic=False)
    return PixelTransformer(transformer, schedule, dtype, checkpoint.place, checkpoint.family)
