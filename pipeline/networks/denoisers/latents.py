"""Latents: what an autoencoder makes of images, and the way back."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, AutoencoderKLFlux2, AutoencoderKLQwenImage

from pipeline.networks.checkpoints import Checkpoint, latent_factor, latent_patch, of_videos
from pipeline.networks.weights.loaded_part import load_part
from pipeline.networks.weights.weight_files import check_files
from pipeline.study.loading import Loading


@dataclass
class Latents:
    """A variational autoencoder: images to latents of about unit variance and back.

    `execution` is the device of one that stays on the CPU until it is needed.
    """

    vae: Any
    execution: torch.device | None = None

    @property
    def factor(self) -> int:
        """Pixels for each position of a latent, in each direction."""
        return latent_factor(self.vae.config)

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
        with self._at_hand():
            return self._decoded((latents / scale + mean).to(self.vae.dtype)).float()

    @torch.inference_mode()
    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Latents of images [B, 3, H, W] in [-1, 1]: the mean of the posterior, which needs no random numbers."""
        with self._at_hand():
            latents = self._encoded(pixels.to(self.vae.dtype)).float()
        mean, scale = self._mean_and_scale(latents)
        return (latents - mean) * scale

    def mask(self, mask: torch.Tensor) -> torch.Tensor:
        """A mask of latents [B, 1, H / factor, W / factor] from one of pixels: of each patch, its first pixel's value.

        So diffusers' pipelines read masks (nearest).
        """
        return mask[..., :: self.factor, :: self.factor]

    @contextmanager
    def _at_hand(self) -> Iterator[None]:
        """The autoencoder is where it computes inside the `with`, and where it stays after it."""
        if self.execution is None:
            yield
            return
        self.vae.to(self.execution)
        try:
            yield
        finally:
            self.vae.to("cpu")

    def _decoded(self, latents: torch.Tensor) -> torch.Tensor:
        pixels: torch.Tensor = self.vae.decode(latents).sample
        return pixels

    def _encoded(self, pixels: torch.Tensor) -> torch.Tensor:
        latents: torch.Tensor = self.vae.encode(pixels).latent_dist.mode()
        return latents


class FrameLatents(Latents):
    """An autoencoder of videos, of which an image is one frame: Qwen-Image's."""

    def _mean_and_scale(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        config = self.vae.config
        mean, std = (torch.tensor(v).to(like).view(1, -1, 1, 1) for v in (config.latents_mean, config.latents_std))
        return mean, 1 / std

    def _decoded(self, latents: torch.Tensor) -> torch.Tensor:
        return super()._decoded(latents[:, :, None])[:, :, 0]

    def _encoded(self, pixels: torch.Tensor) -> torch.Tensor:
        return super()._encoded(pixels[:, :, None])[:, :, 0]


class PatchLatents(Latents):
    """FLUX.2's, whose positions are patches: the values of a patch are channels, each normalized by its statistics."""

    def _mean_and_scale(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        statistics = self.vae.bn
        mean, variance = (x.to(like).view(1, -1, 1, 1) for x in (statistics.running_mean, statistics.running_var))
        return mean, (variance + self.vae.config.batch_norm_eps).rsqrt()

    def _decoded(self, latents: torch.Tensor) -> torch.Tensor:
        return super()._decoded(F.pixel_shuffle(latents, latent_patch(self.vae.config)))

    def _encoded(self, pixels: torch.Tensor) -> torch.Tensor:
        return F.pixel_unshuffle(super()._encoded(pixels), latent_patch(self.vae.config))


def rounded(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 images of pixels about in [-1, 1]."""
    return ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def load_latents(checkpoint: Checkpoint, dtype: torch.dtype, loading: Loading, device: torch.device) -> Latents:
    """Load the autoencoder of a checkpoint. Raises InputError for missing, pickled or damaged weights."""
    check_files(checkpoint, ("vae",))
    # SDXL's first autoencoder overflows in float16, which its configuration says (diffusers' force_upcast).
    settings = checkpoint.settings("vae") or {}
    upcast = dtype == torch.float16 and settings.get("force_upcast", True)
    kind: Any = AutoencoderKL
    latents = Latents
    if of_videos(settings):
        kind, latents = AutoencoderKLQwenImage, FrameLatents
    elif latent_patch(settings) > 1:
        kind, latents = AutoencoderKLFlux2, PatchLatents
    vae = load_part(kind, checkpoint, "vae", torch.float32 if upcast else dtype)
    if loading.vae_slicing:
        vae.enable_slicing()
    if loading.vae_tiling:
        vae.enable_tiling()
    offload = "vae" in loading.offload
    vae = vae.to("cpu" if offload else device).eval().requires_grad_(False)
    return latents(vae, device if offload else None)
