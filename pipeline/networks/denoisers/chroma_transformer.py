"""Chroma's transformer: FLUX.1's blocks, modulated by the timestep alone, with the padding of texts masked.

It reads no pooled text and no guidance scale. Padding is masked as in its training: the tokens of the text, its end
mark and one token of padding are read. diffusers' pipeline makes numbers of the mask, which attention adds to its
scores, so that padding is read as well (https://github.com/huggingface/diffusers/issues/12116).
"""

import torch
import torch.nn.functional as F

from pipeline.networks.denoisers.packed_transformer import PackedTransformer, places
from pipeline.networks.text.conditioning import Conditioning


class ChromaTransformer(PackedTransformer):
    """Chroma's transformer."""

    def _predicted_patches(
        self, patches: torch.Tensor, timestep: torch.Tensor, conditioning: Conditioning, extent: tuple[int, int]
    ) -> torch.Tensor:
        tokens, read = conditioning["tokens"].to(patches), conditioning["read"].to(patches.device)
        output: torch.Tensor = self.transformer(
            patches,
            tokens,
            timestep,
            places(extent, patches.device),
            torch.zeros(tokens.shape[1], 3, device=patches.device),
            F.pad(read, (0, patches.shape[1]), value=True),  # text and image [texts, L + rows columns]
        ).sample
        return output


load_network = ChromaTransformer.load
