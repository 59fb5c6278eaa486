"""Z-Image's transformer (arXiv 2511.22699): image and text in one stream, after blocks for each of them alone.

Image and text are filled up to multiples of 32 positions with learned tokens, each text for itself, so the network
takes lists. Its time runs the other way: 1 - t, of which its prediction is the velocity, x0 - e.
"""

from collections.abc import Mapping
from copy import copy
from typing import Any

import torch

from pipeline.networks.denoisers.flow_transformer import FlowTransformer
from pipeline.networks.text.conditioning import Conditioning


class ZImageTransformer(FlowTransformer):
    """Z-Image's transformer, on latents."""

    @property
    def channels(self) -> int:
        return int(self.transformer.config.in_channels)

    def steps_of(self, shape: tuple[int, int, int], steps: int) -> Mapping[str, Any]:
        return {"sigmas": torch.linspace(1.0, 1 / steps, steps).tolist(), **super().steps_of(shape, steps)}

    def _predicted(self, x: torch.Tensor, timestep: float, conditioning: Conditioning) -> torch.Tensor:
        tokens, images = conditioning["tokens"].to(x), len(x)
        x = x.repeat(len(tokens) // images, 1, 1, 1)  # steered, each text has a copy
        steps = torch.full((len(tokens),), (1000 - timestep) / 1000, dtype=torch.float32, device=x.device)
        return -evaluated(self.transformer, x, steps, tokens, conditioning["read"])[:images]


def evaluated(
    transformer: Any, x: torch.Tensor, steps: torch.Tensor, tokens: torch.Tensor, read: torch.Tensor
) -> torch.Tensor:
    """The network's own prediction [B, C, H, W] for `x`, its times [B], and the `tokens` [B, L, W] that are `read`."""
    texts = [row[:length] for row, length in zip(tokens, read.sum(1).tolist(), strict=True)]
    positions = transformer.rope_embedder
    if x.is_meta:  # which its tables of positions move to and cannot be moved back from
        transformer.rope_embedder = copy(positions)
    try:
        output = transformer(list(x.unsqueeze(2).unbind()), steps, texts).sample
    finally:
        transformer.rope_embedder = positions
    return torch.stack(output).squeeze(2)


load_network = ZImageTransformer.load
