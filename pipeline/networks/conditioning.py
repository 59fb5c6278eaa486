"""What a denoising network is told besides the noisy picture and the noise level."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Conditioning:
    """The texts of a batch as a network reads them.

    `tokens` [B, L, W] are for cross-attention. SDXL also reads `pooled` [B, P] and `time_ids` [B, 6]: original
    height and width, top and left of the crop, target height and width, in pixels (arXiv 2307.01952).
    """

    tokens: torch.Tensor
    pooled: torch.Tensor | None = None
    time_ids: torch.Tensor | None = None

    def first(self) -> "Conditioning":
        """What the network is told of the first picture of the batch alone."""
        rest = (None if part is None else part[:1] for part in (self.pooled, self.time_ids))
        return Conditioning(self.tokens[:1], *rest)


def joined(parts: Sequence[Conditioning]) -> Conditioning:
    """The batches one after the other. Raises ValueError where their texts have different lengths."""
    lengths = sorted({part.tokens.shape[1] for part in parts})
    if len(lengths) > 1:
        raise ValueError(f"texts of one call need one number of tokens, found {lengths}")
    pooled = [part.pooled for part in parts if part.pooled is not None]
    time_ids = [part.time_ids for part in parts if part.time_ids is not None]
    return Conditioning(
        torch.cat([part.tokens for part in parts]),
        torch.cat(pooled) if pooled else None,
        torch.cat(time_ids) if time_ids else None,
    )
