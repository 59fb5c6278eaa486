"""Energies of a Laplacian pyramid (Burt and Adelson 1983): a feature space that sees finish.

It has no weights to train or to fetch, and no notion of content: what it sees is how much detail of each size an
image has, in light and in colour, and roughly where. Progressive GANs were compared by the same pyramid (sliced
Wasserstein distance, 1710.10196). It stands beside CLIP, which sees content and is nearly blind to blur.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pipeline.storage.files import fingerprint

LEVELS = 4
# Energies are averaged in each of GRID x GRID parts of the image.
GRID = 2
# The variance of a few gray levels: below it, detail is rounding.
_FLOOR = 1e-4
_BINOMIAL = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
# BT.601: luma and two colour differences from RGB.
_YCC = torch.tensor([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])


@dataclass
class Pyramid:
    """The extractor; an image's vector has (LEVELS + 1) x 3 x GRID^2 = 60 numbers."""

    device: torch.device

    @property
    def digest(self) -> str:
        return fingerprint([LEVELS, GRID, _FLOOR, _BINOMIAL.tolist(), _YCC.tolist()])

    @property
    def resize(self) -> str:
        return "none; RGB in [0, 1] to BT.601 luma and colour differences"

    @property
    def precision(self) -> str:
        return "float32"

    def prepare(self, image: Image.Image) -> Tensor:
        """One image as it is, [3, H, W] uint8."""
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)

    def embed(self, pixels: Tensor) -> Tensor:
        """Log energies of each band, channel and part, then the parts' mean colours: [B, 60] of [B, 3, H, W] uint8.

        Raises ValueError for images below 24x24, whose smallest band would have no inner pixels.
        """
        if min(pixels.shape[2:]) < 3 * 2 ** (LEVELS - 1):
            height, width = pixels.shape[2:]
            raise ValueError(f"a pyramid of {LEVELS} levels needs images of at least 24x24, found {width}x{height}")
        x = torch.einsum("bchw,dc->bdhw", pixels.to(self.device).float() / 255, _YCC.to(self.device))
        kernel = torch.outer(_BINOMIAL, _BINOMIAL).to(self.device).expand(3, 1, 5, 5)
        parts = []
        for _ in range(LEVELS):
            low = F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), kernel, groups=3)
            parts.append(torch.log(F.adaptive_avg_pool2d((x - low).square(), GRID) + _FLOOR).flatten(1))
            x = low[:, :, ::2, ::2]
        return torch.cat([*parts, F.adaptive_avg_pool2d(x, GRID).flatten(1)], 1)


def load_pyramid(_place: Path, device: torch.device, _fetch: str) -> Pyramid:
    """The pyramid, which has no weights."""
    return Pyramid(device)
