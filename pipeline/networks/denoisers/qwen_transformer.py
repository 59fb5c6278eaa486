"""Qwen-Image's transformer (arXiv 2508.02324): joint blocks alone, on 2x2 patches of latents.

It computes the positions of image and text itself, from the image's extent in patches, and reads of every text as many
tokens as there are.
"""

import torch

from pipeline.networks.denoisers.packed_transformer import PackedTransformer
from pipeline.networks.text.conditioning import Conditioning


class QwenTransformer(PackedTransformer):
    """Qwen-Image's transformer."""

    def _predicted_patches(
        self, patches: torch.Tensor, timestep: torch.Tensor, conditioning: Conditioning, extent: tuple[int, int]
    ) -> torch.Tensor:
        read = conditioning["read"]
        # As long as the longest text of the call, of which shorter ones are masked; what is compiled is for one length.
        compiled = self.transformer._compiled_call_impl is not None
        longest = read.shape[1] if compiled else int(read.sum(1).max())
        output: torch.Tensor = self.transformer(
            patches,
            conditioning["tokens"][:, :longest].to(patches),
            read[:, :longest].to(patches.device),
            timestep,
            [[(1, *extent)]] * len(patches),  # frames, rows, columns
        ).sample
        return output


load_network = QwenTransformer.load
