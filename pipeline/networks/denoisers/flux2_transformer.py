"""FLUX.2's transformers: FLUX.1's order of blocks, on latents whose positions are patches already.

All blocks of a kind share one modulation, computed once from the timestep and, but for klein, the guidance scale that
the network was distilled with. A position has four numbers: an image's second and third are its row and column, a
text's fourth counts its tokens. No pooled text is read, and no padding is masked.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu

from pipeline.networks.denoisers.packed_transformer import PackedTransformer
from pipeline.networks.text.conditioning import Conditioning

# What diffusers' pipeline takes unless it is told.
EMBEDDED_GUIDANCE = 4.0


class Flux2Transformer(PackedTransformer):
    """FLUX.2's transformer."""

    def steps_of(self, shape: tuple[int, int, int], steps: int) -> Mapping[str, Any]:
        """Dynamic shifting moves the levels by the number of patches and of steps, as fitted by its authors."""
        levels: dict[str, Any] = {"sigmas": np.linspace(1.0, 1 / steps, steps)}
        if self.schedule.config.use_dynamic_shifting:
            levels["mu"] = compute_empirical_mu(shape[1] * shape[2], steps)
        return levels

    def _image_starts(self, conditioning: Conditioning) -> list[int]:
        rows, length, _ = conditioning["tokens"].shape
        return [length] * rows

    def _predicted_patches(
        self, patches: torch.Tensor, timestep: torch.Tensor, conditioning: Conditioning, extent: tuple[int, int]
    ) -> torch.Tensor:
        tokens, device = conditioning["tokens"].to(patches), patches.device
        guidance = None
        if self.transformer.config.guidance_embeds:
            guidance = conditioning.get("embedded_guidance")
            if guidance is None:
                guidance = torch.full((len(tokens),), EMBEDDED_GUIDANCE)
            guidance = guidance.to(device)
        rows, columns, one = (torch.arange(count, device=device) for count in (*extent, 1))
        words = torch.arange(tokens.shape[1], device=device)
        output: torch.Tensor = self.transformer(
            patches,
            tokens,
            timestep,
            torch.cartesian_prod(one, rows, columns, one),
            torch.cartesian_prod(one, one, one, words),
            guidance,
        ).sample
        return output


load_network = Flux2Transformer.load
