"""Transformers of SD3's kind (MM-DiT, arXiv 2403.03206): Stable Diffusion 3 and 3.5, and the embedded flow networks.

Image and text are two streams that meet in every block's attention. diffusers' network cuts its sample into patches
itself.
"""

import torch

from pipeline.networks.denoisers.flow_transformer import FlowTransformer
from pipeline.networks.text.conditioning import Conditioning


class JointTransformer(FlowTransformer):
    """SD3's transformer, on latents or on pixels."""

    @property
    def channels(self) -> int:
        return int(self.transformer.config.in_channels)

    def _predicted(self, x: torch.Tensor, timestep: float, conditioning: Conditioning) -> torch.Tensor:
        tokens, pooled = (conditioning[name].to(x) for name in ("tokens", "pooled"))
        # As many as texts: the network embeds one for each.
        steps = torch.full((len(pooled),), timestep, dtype=torch.float32, device=x.device)
        output: torch.Tensor = self.transformer(x, tokens, pooled, steps).sample
        return output


load_network = JointTransformer.load
