"""Blocks that are given text and image as one stream, and how one is damaged.

They are those of Lumina 2 and Z-Image, and the single-stream blocks of Chroma and FLUX.2. In all but Z-Image the image
follows the text, in Lumina 2 at a place that depends on the text; in Z-Image it comes first, and texts and images are
filled up. Lumina 2 and Z-Image also have blocks for the image alone (`noise_refiner`), which can be damaged as well,
and for the text alone (`context_refiner`), which cannot. As in joint blocks, damage is done to the image.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.transformers.transformer_chroma import ChromaSingleTransformerBlock
from diffusers.models.transformers.transformer_flux2 import Flux2SingleTransformerBlock
from diffusers.models.transformers.transformer_lumina2 import Lumina2TransformerBlock
from diffusers.models.transformers.transformer_z_image import ZImageTransformerBlock

from pipeline.networks.joint_blocks import DamagedAttention, normed, projected
from pipeline.networks.queries import blurred

# Those beside joint blocks of the same network.
_AFTER_JOINT = (ChromaSingleTransformerBlock, Flux2SingleTransformerBlock)


def is_stream_block(module: torch.nn.Module) -> bool:
    """Whether it is a block of these kinds with an image in its stream: the time modulates only those."""
    if isinstance(module, _AFTER_JOINT):
        return True
    return isinstance(module, Lumina2TransformerBlock | ZImageTransformerBlock) and bool(module.modulation)


class ImageOfStream:
    """Where the image lies in streams [B, positions, width].

    `extent` is its (height, width) in patches. It begins at `starts` [B] in streams with texts before it, else at 0.
    """

    def __init__(self, extent: tuple[int, int], starts: Sequence[int] | None):
        self.extent, self.size = extent, extent[0] * extent[1]
        self._starts = starts

    def starts(self, stream: torch.Tensor) -> Sequence[int]:
        """Where it begins in each row of a stream; one that has no more positions than the image holds it alone."""
        return [0] * len(stream) if self._starts is None or stream.shape[1] == self.size else self._starts

    def of(self, stream: torch.Tensor) -> torch.Tensor:
        """The image [B, positions of the image, ...] of a stream [B, positions, ...]."""
        begins = self.starts(stream)
        return torch.stack([row[begin : begin + self.size] for row, begin in zip(stream, begins, strict=True)])

    def replaced(self, stream: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """A stream whose image is `image`."""
        changed = stream.clone()
        for row, own, begin in zip(changed, image, self.starts(stream), strict=True):
            row[begin : begin + self.size] = own
        return changed


def damaged_attention_of(block: Any, kind: str, image: ImageOfStream, blur: float | None) -> tuple[Any, Any]:
    """The attention of such a block, and what computes it damaged by `pag` or `seg`; `blur` is that of `seg`."""
    if isinstance(block, _AFTER_JOINT):  # whose attention is that of joint blocks
        return block.attn, DamagedAttention(kind, image.extent, blur)
    return attention_of(block), DamagedStream(kind, image, blur)


def attention_of(block: Any) -> Any:
    """The attention of a block of Lumina 2 or Z-Image."""
    return block.attn if isinstance(block, Lumina2TransformerBlock) else block.attention


class DamagedStream:
    """Attention of Lumina 2 or Z-Image, damaged by `pag` or `seg`; `blur` is that of `seg`."""

    def __init__(self, kind: str, image: ImageOfStream, blur: float | None):
        self.kind, self.image, self.blur = kind, image, blur

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: torch.Tensor | None = None,
        freqs_cis: torch.Tensor | None = None,
        **_: object,
    ) -> torch.Tensor:
        queries = attn.to_q(hidden_states)
        if self.kind == "seg":
            queries = self.image.replaced(queries, blurred(self.image.of(queries), *self.image.extent, self.blur))
        query, key, value = stream_heads(attn, queries, hidden_states)
        turns = stream_turns(image_rotary_emb, freqs_cis)
        query, key, value = (x.transpose(1, 2) for x in (turned(query, turns), turned(key, turns), value))
        mask = None if attention_mask is None else attention_mask.bool()[:, None, None]
        if self.kind == "pag":
            itself = self._itself(hidden_states)
            mask = itself if mask is None else mask & itself
        # Lumina 2 has fewer heads of keys than of queries.
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True)
        return projected(attn, attended.transpose(1, 2).flatten(2))

    def _itself(self, stream: torch.Tensor) -> torch.Tensor:
        """False [B, 1, positions, positions] where an image position would attend to another one of the image."""
        positions = stream.shape[1]
        mask = torch.ones(len(stream), 1, positions, positions, dtype=torch.bool, device=stream.device)
        for row, begin in zip(mask[:, 0], self.image.starts(stream), strict=True):
            image = slice(begin, begin + self.image.size)
            row[image, image] = False
            row.diagonal().fill_(True)
        return mask


def stream_heads(attn: Any, queries: torch.Tensor, stream: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Queries, keys and values [B, positions, heads, depth] of a stream, with their norms, not turned.

    `queries` [B, positions, width] are the projected ones. Lumina 2 has fewer heads of keys and values.
    """
    depth = queries.shape[-1] // attn.heads
    split = (x.unflatten(-1, (-1, depth)) for x in (queries, attn.to_k(stream), attn.to_v(stream)))
    return normed(attn.norm_q, attn.norm_k, *split)


def stream_turns(image_rotary_emb: torch.Tensor | None, freqs_cis: torch.Tensor | None) -> torch.Tensor:
    """The rotary embeddings that a block gives its attention, under Lumina 2's name for them or Z-Image's."""
    turns = freqs_cis if image_rotary_emb is None else image_rotary_emb
    assert turns is not None, "every block of these networks turns its queries by their positions"
    return turns


def turned(x: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Queries or keys [B, positions, heads, depth], turned by their positions (rotary embedding, arXiv 2104.09864).

    `turns` [B, positions, depth / 2] are complex numbers of length 1, as the networks' own processors have them.
    """
    pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * turns.unsqueeze(2)).flatten(3).type_as(x)
