"""Transformers of FLUX.1: joint blocks, then blocks with image and text in one stream.

The network reads 2x2 patches of latents as a sequence with the position of each, a timestep in [0, 1], and, where it
was distilled of classifier-free guidance, the scale that it should imitate as one more condition: embedded guidance.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from pipeline.networks.denoisers.flow_transformer import FlowTransformer
from pipeline.networks.text.conditioning import Conditioning

# What diffusers' pipeline takes unless it is told.
EMBEDDED_GUIDANCE = 3.5


class FluxTransformer(FlowTransformer):
    """FLUX.1's transformer."""

    @property
    def channels(self) -> int:
        return int(self.transformer.config.in_channels) // self.patch**2

    def steps_of(self, shape: tuple[int, int, int], steps: int) -> Mapping[str, Any]:
        return {"sigmas": np.linspace(1.0, 1 / steps, steps), **super().steps_of(shape, steps)}

    def _predicted(self, x: torch.Tensor, timestep: float, conditioning: Conditioning) -> torch.Tensor:
        rows, columns = x.shape[-2] // self.patch, x.shape[-1] // self.patch
        tokens, pooled = (conditioning[name].to(x) for name in ("tokens", "pooled"))
        count = len(pooled)
        places = torch.zeros(rows, columns, 3, device=x.device)
        places[..., 1] += torch.arange(rows, device=x.device)[:, None]
        places[..., 2] += torch.arange(columns, device=x.device)[None, :]
        guidance = None
        if self.transformer.config.guidance_embeds:
            guidance = conditioning.get("embedded_guidance")
            if guidance is None:
                guidance = torch.full((count,), EMBEDDED_GUIDANCE)
            guidance = guidance.to(x.device)
        output: torch.Tensor = self.transformer(
            packed(x, self.patch),
            tokens,
            pooled,
            torch.full((count,), timestep, dtype=torch.float32, device=x.device) / 1000,
            places.flatten(0, 1),
            torch.zeros(tokens.shape[1], 3, device=x.device),
            guidance,
        ).sample
        return unpacked(output, rows, columns, self.patch)


def packed(x: torch.Tensor, patch: int) -> torch.Tensor:
    """Samples [B, C, H, W] as a sequence of patches [B, H W / patch^2, C patch^2]."""
    count, channels, height, width = x.shape
    x = x.view(count, channels, height // patch, patch, width // patch, patch).permute(0, 2, 4, 1, 3, 5)
    return x.reshape(count, (height // patch) * (width // patch), channels * patch**2)


def unpacked(sequence: torch.Tensor, rows: int, columns: int, patch: int) -> torch.Tensor:
    """The inverse of `packed`, for `rows` and `columns` of patches."""
    count, _, width = sequence.shape
    x = sequence.view(count, rows, columns, width // patch**2, patch, patch).permute(0, 3, 1, 4, 2, 5)
    return x.reshape(count, width // patch**2, rows * patch, columns * patch)


load_network = FluxTransformer.load
