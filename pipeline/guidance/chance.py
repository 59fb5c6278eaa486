"""Random numbers of guidance itself: what a step leaves out, shuffles or makes noisy.

They follow from an image's seed and the step alone, so that an image does not depend on its batch, and do not disturb
those that the image is drawn from.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b

import torch


@dataclass(frozen=True)
class Chance:
    """The random numbers of one step, for the samples of a batch with these `seeds`."""

    seeds: tuple[int, ...]
    step: int

    def generators(self, purpose: str) -> Iterator[torch.Generator]:
        """One generator on the CPU for each sample; other purposes, such as another layer, draw other numbers."""
        for seed in self.seeds:
            digest = blake2b(f"{seed} {self.step} {purpose}".encode(), digest_size=7).digest()
            yield torch.Generator().manual_seed(int.from_bytes(digest, "big"))

    def uniform(self, purpose: str, *shape: int) -> torch.Tensor:
        """Numbers [B, *shape] in [0, 1)."""
        return torch.stack([torch.rand(shape, generator=own) for own in self.generators(purpose)])

    def normal(self, purpose: str, *shape: int) -> torch.Tensor:
        """Standard normal numbers [B, *shape]."""
        return torch.stack([torch.randn(shape, generator=own) for own in self.generators(purpose)])
