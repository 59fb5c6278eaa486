"""Chroma's transformer: FLUX.1's blocks, modulated by the timestep alone, with the padding of texts masked.

It reads no pooled text and no guidance scale. Padding is masked as in its training: the tokens of the text, its end
mark and one token of padding are read. diffusers' pipeline makes numbers of the mask, which attention adds to its
scores, so that padding is read as well (https://github.com/huggingface/diffusers/issues/12116).
"""

from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.transformers.transformer_flux import FluxAttnProcessor

from pipeline.networks.denoisers.packed_transformer import PackedTransformer, places
from pipeline.networks.text.conditioning import Conditioning


class ChromaTransformer(PackedTransformer):
    """Chroma's transformer."""

    def __post_init__(self) -> None:
        self.transformer.set_attn_processor(_PaddingUnread())

    def _image_starts(self, conditioning: Conditioning) -> list[int]:
        rows, length = conditioning["read"].shape
        return [length] * rows

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


class _PaddingUnread(FluxAttnProcessor):  # type: ignore[misc]
    """FLUX.1's attention where no position reads padding, and padding reads what the others do.

    diffusers' blocks let padding read nothing at all. What comes of a row without keys depends on the kernel, may be no
    number, and is then in every sum that has padding with weight 0.
    """

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: Any = None,
    ) -> Any:
        assert attention_mask is not None
        # [B, 1, text and image, text and image], whose last row is a position of the image's.
        return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask[:, :, -1:], image_rotary_emb)


load_network = ChromaTransformer.load
