"""Transformers that read 2x2 patches of latents as a sequence: FLUX.1, Chroma and Qwen-Image."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from pipeline.networks.denoisers.flow_transformer import FlowTransformer
from pipeline.networks.text.conditioning import Conditioning


class PackedTransformer(FlowTransformer):
    """A transformer on a sequence of patches."""

    @property
    def channels(self) -> int:
        return int(self.transformer.config.in_channels) // self.patch**2

    def steps_of(self, shape: tuple[int, int, int], steps: int) -> Mapping[str, Any]:
        return {"sigmas": np.linspace(1.0, 1 / steps, steps), **super().steps_of(shape, steps)}

    @abstractmethod
    def _predicted_patches(
        self, patches: torch.Tensor, timestep: torch.Tensor, conditioning: Conditioning, extent: tuple[int, int]
    ) -> torch.Tensor:
        """The velocity [B, rows columns, width] for `patches` of that shape.

        `timestep` in [0, 1] has one value per text [texts]; `extent` is (rows, columns) of the image in patches.
        """

    def _predicted(self, x: torch.Tensor, timestep: float, conditioning: Conditioning) -> torch.Tensor:
        rows, columns = x.shape[-2] // self.patch, x.shape[-1] // self.patch
        # As many as texts: the network embeds one for each.
        steps = torch.full((len(conditioning["tokens"]),), timestep, dtype=torch.float32, device=x.device) / 1000
        output = self._predicted_patches(packed(x, self.patch), steps, conditioning, (rows, columns))
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


def places(extent: tuple[int, int], device: torch.device) -> torch.Tensor:
    """Positions [rows columns, 3] of an image's patches as FLUX.1 and Chroma have them; those of texts are zeros."""
    rows, columns = extent
    found = torch.zeros(rows, columns, 3, device=device)
    found[..., 1] += torch.arange(rows, device=device)[:, None]
    found[..., 2] += torch.arange(columns, device=device)[None, :]
    return found.flatten(0, 1)
