"""Latents: what an autoencoder makes of images, and the way back."""

from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL

from pipeline.networks.checkpoints import Checkpoint
from pipeline.networks.weights.loaded_part import load_part
from pipeline.networks.weights.weight_files import check_files
from pipeline.study.loading import Loading


@dataclass
class Latents:
    """A variational autoencoder: images to latents of about unit variance and back."""

    vae: AutoencoderKL

    @property
    def factor(self) -> int:
        """Pixels for each position of a latent, in each direction."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    def _mean_and_scale(self, like: torch.Tensor) -> tuple[torch.Tensor | float, torch.Tensor | float]:
        config = self.vae.config
        scale = float(config.scaling_factor)
        if config.latents_mean is None or config.latents_std is None:
            return float(config.shift_factor or 0.0), scale
        mean, std = (torch.tensor(v).to(like).view(1, -1, 1, 1) for v in (config.latents_mean, config.latents_std))
        return mean, scale / std

    @torch.inference_mode()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Images [B, 3, H, W], about in [-1, 1], of latents [B, C, H / factor, W / factor]."""
        mean, scale = self._mean_and_scale(latents)
        pixels: torch.Tensor = self.vae.decode((latents / scale + mean).to(self.vae.dtype)).sample
        return pixels.float()

    @torch.inference_mode()
    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Latents of images [B, 3, H, W] in [-1, 1]: the mean of the posterior, which needs no random numbers."""
        latents: torch.Tensor = self.vae.encode(pixels.to(self.vae.dtype)).latent_dist.mode().float()
        mean, scale = self._mean_and_scale(latents)
        return (latents - mean) * scale


def rounded(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 images of pixels about in [-1, 1]."""
    return ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def load_latents(checkpoint: Checkpoint, dtype: torch.dtype, loading: Loading, device: torch.device) -> Latents:
    """Load the autoencoder of a checkpoint. Raises InputError for missing, pickled or damaged weights."""
    check_files(checkpoint, ("vae",))
    # SDXL's first autoencoder overflows in float16, which its configuration says (diffusers' force_upcast).
    settings = checkpoint.settings("vae") or {}
    upcast = dtype == torch.float16 and settings.get("force_upcast", True)
    vae = load_part(AutoencoderKL, checkpoint, "vae", torch.float32 if upcast else dtype)
    if loading.vae_slicing:
        vae.enable_slicing()
    if loading.vae_tiling:
        vae.enable_tiling()
    return Latents(vae.to(device).eval().requires_grad_(False))
