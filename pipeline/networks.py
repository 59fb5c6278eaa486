"""Loading networks: a folder in diffusers' layout becomes something that predicts.

A folder holds `unet/` and `scheduler/`; a guide reads the main network's text embeddings (pipeline/text_encoder.py).
Weights load from safetensors only.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DConditionModel

from pipeline.conditioning import Conditioning
from pipeline.errors import InputError
from pipeline.parametrisation import from_x0, signal_and_noise, timestep_at, to_x0
from pipeline.weights import check_folder


@dataclass
class DenoisingNetwork:
    """A UNet with its training noise schedule, in pixel space with patches as channels.

    `patch` is the side of the patches (`pixel_unshuffle`), 1 for none.
    """

    unet: UNet2DConditionModel
    schedule: DDPMScheduler
    patch: int

    @property
    def prediction_type(self) -> str:
        return str(self.schedule.config.prediction_type)

    @property
    def sample_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of what the sampler works on."""
        config = self.unet.config
        return (config.in_channels, config.sample_size, config.sample_size)

    @torch.inference_mode()
    def __call__(self, x: torch.Tensor, timestep: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        """The network's output [B, C, H, W] in its own prediction type, for noisy `x` of unit total variance."""
        x = x.contiguous(memory_format=torch.channels_last)
        output: torch.Tensor = self.unet(x, timestep, encoder_hidden_states=conditioning.tokens).sample
        return output

    def timestep_at(self, sigma: float) -> float:
        """The timestep of the training schedule, fractional as a rule, with the noise level sigma = b / a."""
        return timestep_at(sigma, self.schedule.alphas_cumprod)

    def same_schedule(self, other: "DenoisingNetwork") -> bool:
        """Whether a timestep means the same noise level to both."""
        ours, theirs = self.schedule.alphas_cumprod, other.schedule.alphas_cumprod
        return ours.shape == theirs.shape and torch.allclose(ours, theirs)

    def converted(self, output: torch.Tensor, x: torch.Tensor, sigma: float, other: "DenoisingNetwork") -> torch.Tensor:
        """This network's output, for `x` of unit total variance at noise level `sigma`, in the type of `other`."""
        if self.prediction_type == other.prediction_type:
            return output
        a, b = signal_and_noise(sigma)
        return from_x0(to_x0(output, self.prediction_type, x, a, b), other.prediction_type, x, a, b)

    def to_pictures(self, x: torch.Tensor) -> torch.Tensor:
        """uint8 pictures [B, 3, H, W] from finished samples."""
        pixels = F.pixel_shuffle(x.float(), self.patch) if self.patch > 1 else x.float()
        return ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def load_network(folder: Path, device: torch.device) -> DenoisingNetwork:
    """Load a UNet and its noise schedule, in single precision. Raises InputError."""
    check_folder(folder, with_text_encoder=False)
    try:
        unet = UNet2DConditionModel.from_pretrained(folder / "unet", use_safetensors=True, torch_dtype=torch.float32)
        schedule = DDPMScheduler.from_pretrained(folder / "scheduler")
    except Exception as error:  # diffusers and safetensors raise many kinds for a damaged folder
        raise InputError(f"{folder} cannot be loaded ({_one_line(error)}); restore it or train it anew") from None
    unet = unet.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)
    patch = round((unet.config.in_channels / 3) ** 0.5)
    if 3 * patch**2 != unet.config.in_channels:
        raise InputError(
            f"{folder}/unet has {unet.config.in_channels} input channels; pixel patches have 3, 12, 48 ..."
        )
    return DenoisingNetwork(unet, schedule, patch)


def check_pair(main: DenoisingNetwork, guide: DenoisingNetwork) -> None:
    """Raise InputError where the guide's predictions cannot be mixed with the main network's."""
    for what, ours, theirs in (
        ("samples of shape", main.sample_shape, guide.sample_shape),
        ("text embeddings of width", main.unet.config.cross_attention_dim, guide.unet.config.cross_attention_dim),
    ):
        if ours != theirs:
            raise InputError(f"the guide does not fit: main works on {what} {ours}, the guide on {theirs}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
