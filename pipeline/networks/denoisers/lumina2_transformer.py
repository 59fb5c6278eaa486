"""Lumina 2's transformer (arXiv 2503.21758): text and image in one stream, after blocks for each of them alone.

The network's time runs the other way: 1 - t, of which its prediction is the velocity, x0 - e. It cuts its sample into
patches itself.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch

from pipeline.networks.denoisers.flow_transformer import FlowTransformer
from pipeline.networks.perturbation import replaced_by
from pipeline.networks.text.conditioning import Conditioning


class Lumina2Transformer(FlowTransformer):
    """Lumina 2's transformer, on latents."""

    @property
    def channels(self) -> int:
        return int(self.transformer.config.in_channels)

    def steps_of(self, shape: tuple[int, int, int], steps: int) -> Mapping[str, Any]:
        # For the number of patches Lumina2Pipeline takes that of channels. Published checkpoints shift by a constant.
        as_if_patches = (shape[0], shape[0] * self.patch, self.patch)
        return {"sigmas": np.linspace(1.0, 1 / steps, steps), **super().steps_of(as_if_patches, steps)}

    def _image_starts(self, conditioning: Conditioning) -> list[int]:
        return [int(n) for n in conditioning["read"].sum(1)]

    def _predicted(self, x: torch.Tensor, timestep: float, conditioning: Conditioning) -> torch.Tensor:
        tokens, images = conditioning["tokens"].to(x), len(x)
        x = x.repeat(len(tokens) // images, 1, 1, 1)  # steered, each text has a copy
        steps = torch.full((len(tokens),), 1 - timestep / 1000, dtype=torch.float32, device=x.device)
        return -evaluated(self.transformer, x, steps, tokens, conditioning["read"])[:images]


def evaluated(
    transformer: Any, x: torch.Tensor, steps: torch.Tensor, tokens: torch.Tensor, read: torch.Tensor
) -> torch.Tensor:
    """The network's own prediction [B, C, H, W] for `x`, its times [B], and the `tokens` [B, L, W] that are `read`.

    What no text of the call fills is left out, which no text reads.
    """
    longest = int(read.sum(1).max())
    tokens, read = tokens[:, :longest], read[:, :longest]
    with ExitStack() as undo:
        if x.is_meta:  # where nothing can be counted, and the network counts the tokens of a text
            positions = transformer.rope_embedder
            own, counted = positions.forward, read
            replaced_by(lambda image, _: own(image, counted), positions, undo)
        output: torch.Tensor = transformer(x, steps, tokens, read.to(x.device)).sample
    return output


load_network = Lumina2Transformer.load
