"""Transformers of FLUX.1: joint blocks, then blocks with image and text in one stream.

The network reads 2x2 patches of latents as a sequence with the position of each, a timestep in [0, 1], and, where it
was distilled of classifier-free guidance, the scale that it should imitate as one more condition: embedded guidance.
"""

import torch

from pipeline.networks.denoisers.packed_transformer import PackedTransformer, places
from pipeline.networks.text.conditioning import Conditioning

# What diffusers' pipeline takes unless it is told.
EMBEDDED_GUIDANCE = 3.5


class FluxTransformer(PackedTransformer):
    """FLUX.1's transformer."""

    def _predicted_patches(
        self, patches: torch.Tensor, timestep: torch.Tensor, conditioning: Conditioning, extent: tuple[int, int]
    ) -> torch.Tensor:
        tokens, pooled = (conditioning[name].to(patches) for name in ("tokens", "pooled"))
        guidance = None
        if self.transformer.config.guidance_embeds:
            guidance = conditioning.get("embedded_guidance")
            if guidance is None:
                guidance = torch.full((len(pooled),), EMBEDDED_GUIDANCE)
            guidance = guidance.to(patches.device)
        output: torch.Tensor = self.transformer(
            patches,
            tokens,
            pooled,
            timestep,
            places(extent, patches.device),
            torch.zeros(tokens.shape[1], 3, device=patches.device),
            guidance,
        ).sample
        return output


load_network = FluxTransformer.load
