"""The two families of text-to-image networks of world 3, their losses and their samplers.

`unet`: diffusers' UNet2DConditionModel on 2x2 patches, predicts x0 under DDPM's linear schedule. `flow`: diffusers'
SD3Transformer2DModel on 4x4 patches, predicts the velocity e - x0 on the straight path x = (1 - s) x0 + s e
(arXiv 2403.03206). Both work in pixel space and read the same frozen CLIP text encoder.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, UNet2DConditionModel
from torch import nn

CANVAS = 64
TRAIN_TIMESTEPS = 1000
TEXT_WIDTH = 128
# The loss of v prediction, SNR + 1, cut at 5 (arXiv 2303.09556).
MAXIMUM_WEIGHT = 5.0


@dataclass(frozen=True)
class FamilyRecipe:
    """One network. `widths`: channels from fine to coarse (unet), or (width, layers, heads) (flow)."""

    family: Literal["unet", "flow"]
    name: str
    widths: tuple[int, ...]
    patch: int
    learning_rate: float


def build_scheduler() -> DDPMScheduler:
    """The UNets' noise schedule: DDPM's linear betas, whose last step leaves nothing of the image; x0 is predicted."""
    return DDPMScheduler(
        num_train_timesteps=TRAIN_TIMESTEPS,
        beta_schedule="linear",
        beta_start=1e-4,
        beta_end=0.02,
        prediction_type="sample",
        clip_sample=False,
    )


def build_network(recipe: FamilyRecipe, text_width: int = TEXT_WIDTH) -> nn.Module:
    """The network of a recipe, freshly initialised from torch's global generator; it reads texts of `text_width`."""
    if recipe.family == "unet":
        fine = len(recipe.widths) - 1
        unet: nn.Module = UNet2DConditionModel(
            sample_size=CANVAS // recipe.patch,
            in_channels=3 * recipe.patch**2,
            out_channels=3 * recipe.patch**2,
            layers_per_block=1,
            block_out_channels=recipe.widths,
            down_block_types=(*["DownBlock2D"] * fine, "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", *["UpBlock2D"] * fine),
            attention_head_dim=4,
            norm_num_groups=16,
            cross_attention_dim=text_width,
            resnet_time_scale_shift="scale_shift",
            addition_embed_type="text",
            addition_embed_type_num_heads=4,
        )
        return unet
    width, layers, heads = recipe.widths
    transformer: nn.Module = SD3Transformer2DModel(
        sample_size=CANVAS,
        patch_size=recipe.patch,
        in_channels=3,
        out_channels=3,
        num_layers=layers,
        attention_head_dim=width // heads,
        num_attention_heads=heads,
        joint_attention_dim=text_width,
        caption_projection_dim=width,
        pooled_projection_dim=text_width,
        pos_embed_max_size=CANVAS // recipe.patch,
        qk_norm="rms_norm",
    )
    # Blocks begin as the identity (adaLN-zero, arXiv 2212.09748).
    for name, module in transformer.named_modules():
        if name.endswith(("norm1.linear", "norm1_context.linear", "norm_out.linear")) or name == "proj_out":
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    return transformer


def alphas_on(device: torch.device) -> torch.Tensor:
    """Cumulated alphas of DDPM's linear schedule, float32 [TRAIN_TIMESTEPS]."""
    alphas: torch.Tensor = build_scheduler().alphas_cumprod.to(device)
    return alphas


def noise_levels(family: str, uniform: torch.Tensor) -> torch.Tensor:
    """Levels of training from uniform numbers [B]: timesteps 0..999 (unet), or s in (0, 1), logit-normal (flow)."""
    if family == "unet":
        return (uniform * TRAIN_TIMESTEPS).long().clamp(max=TRAIN_TIMESTEPS - 1)
    normal = torch.erfinv((2 * uniform - 1).clamp(-0.9999, 0.9999)) * 2**0.5
    return normal.sigmoid()


def network_loss(
    recipe: FamilyRecipe,
    network: nn.Module,
    x0: torch.Tensor,
    noise: torch.Tensor,
    level: torch.Tensor,
    context: torch.Tensor,
    pooled: torch.Tensor,
    alphas: torch.Tensor,
) -> torch.Tensor:
    """Loss of images x0 in [-1, 1] [B, 3, H, W] at `level` [B] (see `noise_levels`)."""
    if recipe.family == "unet":
        alpha = alphas[level].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * x0 + (1 - alpha).sqrt() * noise
        output = _unet(recipe, network, noisy, level, context)
        weight = (1 / (1 - alpha)).clamp(max=MAXIMUM_WEIGHT)  # SNR + 1
        error: torch.Tensor = (weight * (output - x0).square()).mean()
        return error
    s = level.view(-1, 1, 1, 1)
    noisy = (1 - s) * x0 + s * noise
    output = network(noisy, context, pooled, level * TRAIN_TIMESTEPS).sample.float()
    velocity_error: torch.Tensor = (output - (noise - x0)).square().mean()
    return velocity_error


def _unet(
    recipe: FamilyRecipe, network: nn.Module, noisy: torch.Tensor, level: torch.Tensor, context: torch.Tensor
) -> torch.Tensor:
    patches = F.pixel_unshuffle(noisy, recipe.patch).contiguous(memory_format=torch.channels_last)
    images: torch.Tensor = F.pixel_shuffle(network(patches, level, context).sample.float(), recipe.patch)
    return images


@dataclass(frozen=True)
class Side:
    """A network and the text it reads: context [B, L, D], pooled [B, D]."""

    recipe: FamilyRecipe
    network: nn.Module
    context: torch.Tensor
    pooled: torch.Tensor

    def __call__(self, x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        """The prediction, x0 (unet) or velocity (flow), [B, 3, H, W]."""
        if self.recipe.family == "unet":
            return _unet(self.recipe, self.network, x, level, self.context)
        predicted: torch.Tensor = self.network(x, self.context, self.pooled, level * TRAIN_TIMESTEPS).sample.float()
        return predicted


@torch.no_grad()
def sample(
    noise: torch.Tensor,
    positive: Side,
    reference: Side | None,
    scale: float,
    steps: int,
    alphas: torch.Tensor,
    start: tuple[torch.Tensor, float] | None = None,
) -> torch.Tensor:
    """Generate from noise [B, 3, H, W]: DDIM without noise (unet) or Euler (flow); returns images in [-1, 1].

    Guidance: reference + scale * (positive - reference), `scale` 1 or no reference being the plain conditional.
    `start`: images [B, 3, H, W] to begin with, and the share of the schedule, in (0, 1], that they are noised to.
    """

    def predict(x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        found = positive(x, level)
        if reference is None or scale == 1:
            return found
        return found + (scale - 1) * (found - reference(x, level))

    x, share = noise, 1.0
    if start is not None:
        images, share = start
    if positive.recipe.family == "unet":
        times = torch.linspace(share * (TRAIN_TIMESTEPS - 1), 0, steps + 1, device=x.device)[:-1].round().long()
        if start is not None:
            x = alphas[times[0]].sqrt() * images + (1 - alphas[times[0]]).sqrt() * noise
        ends = [*alphas[times][1:], alphas.new_ones(())]
        for time, then in zip(times, ends, strict=True):
            now = alphas[time]
            x0 = predict(x, time.expand(len(x)))
            e = (x - now.sqrt() * x0) / (1 - now).sqrt()
            x = then.sqrt() * x0 + (1 - then).sqrt() * e
        return x.clamp(-1, 1)
    levels = torch.linspace(share, 0, steps + 1, device=x.device)
    if start is not None:
        x = (1 - share) * images + share * noise
    for s, then in pairwise(levels):
        x = x + (then - s) * predict(x, s.expand(len(x)))
    return x.clamp(-1, 1)


def scheduler_of(recipe: FamilyRecipe) -> Any:
    """diffusers' scheduler that the network was trained for."""
    return build_scheduler() if recipe.family == "unet" else FlowMatchEulerDiscreteScheduler(shift=1.0)
