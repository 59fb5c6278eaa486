"""Blocks of transformers in which image and text meet in one attention, and how one is damaged.

SD3's joint blocks, Qwen-Image's, and the double-stream blocks of FLUX and Chroma have a stream each for image and text;
single-stream blocks have both in one, the text first (those of Chroma and FLUX.2 are given it as one:
stream_blocks.py). Damage is done to the image: `pag` leaves each of its positions itself and the text to attend to
(diffusers' StableDiffusion3PAGPipeline), `seg` blurs its queries, and what is drawn for a block is drawn for its
positions. The text stream is what it is in the undamaged block, as far as it does not read the image.
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention import JointTransformerBlock
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.transformers.transformer_chroma import ChromaTransformerBlock
from diffusers.models.transformers.transformer_flux import (
    FluxAttention,
    FluxSingleTransformerBlock,
    FluxTransformerBlock,
)
from diffusers.models.transformers.transformer_flux2 import (
    Flux2ParallelSelfAttention,
    Flux2Transformer2DModel,
    Flux2TransformerBlock,
)
from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformerBlock, apply_rotary_emb_qwen

from pipeline.networks.queries import blurred

# Blocks that are given text and image apart and return (text, image).
JOINT_BLOCKS = (
    JointTransformerBlock,
    FluxTransformerBlock,
    FluxSingleTransformerBlock,
    Flux2TransformerBlock,
    ChromaTransformerBlock,
    QwenImageTransformerBlock,
)


def attentions(block: Any) -> list[Any]:
    """The attentions of a block that image positions take part in: SD3.5's dual blocks have two."""
    second = getattr(block, "attn2", None)
    return [block.attn] if second is None else [block.attn, second]


def pass_through(
    hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor, *_: object, **__: object
) -> tuple[torch.Tensor, torch.Tensor]:
    """A block that is left out: both streams as they come, (text, image)."""
    return encoder_hidden_states, hidden_states


class DamagedAttention:
    """Attention of a block of these kinds, damaged by `pag` or `seg`.

    `extent` is (height, width) of the image in patches, `blur` that of `seg`.
    """

    def __init__(self, kind: str, extent: tuple[int, int], blur: float | None):
        self.kind, self.extent, self.blur = kind, extent, blur

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
        encoder_hidden_states_mask: torch.Tensor | None = None,
        **_: object,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        height, width = self.extent
        image = height * width
        (queries, keys, values), beside = projections(attn, hidden_states)
        if self.kind == "seg":
            before = hidden_states.shape[1] - image  # the text of a single stream
            queries = torch.cat([queries[:, :before], blurred(queries[:, before:], height, width, self.blur)], 1)
        heads = normed(attn.norm_q, attn.norm_k, *split(attn, queries, keys, values))
        text = 0
        if encoder_hidden_states is not None:
            text = encoder_hidden_states.shape[1]
            heads = tuple(
                torch.cat(pair, 2) for pair in zip(text_heads(attn, encoder_hidden_states), heads, strict=True)
            )
        query, key, value = heads
        if image_rotary_emb is not None:
            turns = turns_of(image_rotary_emb)
            query, key = (turned(x, turns) for x in (query, key))
        mask = readable(attention_mask, encoder_hidden_states_mask, image)
        if self.kind == "pag":
            kept = torch.ones(2 * query.shape[2:3], dtype=torch.bool, device=query.device)
            kept[-image:, -image:] = torch.eye(image, dtype=torch.bool, device=query.device)
            mask = kept if mask is None else kept & mask
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2).flatten(2)
        if encoder_hidden_states is None:
            return of_stream(attn, attended, beside)
        return projected(attn, attended[:, text:]), of_texts(attn, attended[:, :text])


def projections(attn: Any, states: torch.Tensor) -> tuple[tuple[torch.Tensor, ...], torch.Tensor | None]:
    """Queries, keys and values [B, positions, width] of states, and what FLUX.2's single streams compute beside."""
    if not isinstance(attn, Flux2ParallelSelfAttention):
        return (attn.to_q(states), attn.to_k(states), attn.to_v(states)), None
    *own, beside = attn.to_qkv_mlp_proj(states).split(
        [*3 * [attn.inner_dim], attn.mlp_hidden_dim * attn.mlp_mult_factor], -1
    )
    return tuple(own), attn.mlp_act_fn(beside)


def called_by(attention: Any, processor: Any) -> Any:
    """`processor` as this attention calls it: FLUX.2's single streams leave out the text, which others have third."""
    if not isinstance(attention, Flux2ParallelSelfAttention):
        return processor
    return lambda attn, states, mask=None, turns=None: processor(attn, states, None, mask, turns)


def of_stream(attn: Any, attended: torch.Tensor, beside: torch.Tensor | None) -> torch.Tensor:
    """What attention of a single stream gives, of what it `attended` and what `projections` has beside it."""
    if beside is not None:
        result: torch.Tensor = attn.to_out(torch.cat([attended, beside], -1))
        return result
    # FLUX.1's single stream projects what comes of attention together with its own MLP's.
    return attended if isinstance(attn, FluxAttention) else projected(attn, attended)


def of_texts(attn: Any, attended: torch.Tensor) -> torch.Tensor:
    """What attention of a joint block gives to the text, which the last block of SD3 has no use for."""
    if getattr(attn, "context_pre_only", False):
        return attended
    result: torch.Tensor = attn.to_add_out(attended)
    return result


def split(attn: Any, *states: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Queries, keys or values [B, positions, width] by the heads of an attention."""
    # [B, heads, positions, depth]
    return tuple(x.reshape(*x.shape[:-1], attn.heads, -1).transpose(1, 2) for x in states)


def normed(
    norm_q: Any, norm_k: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """Queries, keys and values with the norms of an attention, which may have none."""
    return (query if norm_q is None else norm_q(query)), (key if norm_k is None else norm_k(key)), value


def text_heads(attn: Any, texts: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Queries, keys and values [B, heads, positions, depth] of a joint block's stream of texts."""
    projections = (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)
    return normed(attn.norm_added_q, attn.norm_added_k, *split(attn, *(project(texts) for project in projections)))


def readable(
    attention_mask: torch.Tensor | None, encoder_hidden_states_mask: torch.Tensor | None, image: int
) -> torch.Tensor | None:
    """True [B, 1, 1, text and image] where a position is read and no masked padding; None where every one is.

    Of the masks that blocks have, Chroma's `attention_mask` [B, 1, text and image, text and image] has padding read
    nothing either, which changes nothing, because nothing reads padding.
    """
    if attention_mask is not None:
        return attention_mask[:, :, -1:]  # as a position of the image reads
    if encoder_hidden_states_mask is not None:
        return F.pad(encoder_hidden_states_mask, (0, image), value=True)[:, None, None]
    return None


def turns_of(image_rotary_emb: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Rotary embeddings of the positions of text and image, in this order: cosines and sines, or complex numbers."""
    first, second = image_rotary_emb
    return (torch.cat([second, first]),) if first.is_complex() else (first, second)  # Qwen-Image's: image, text


def turned(x: torch.Tensor, turns: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Queries or keys [B, heads, positions, depth] turned by the rotary embeddings of their positions."""
    if len(turns) == 1:
        own: torch.Tensor = apply_rotary_emb_qwen(x.transpose(1, 2), turns[0], use_real=False).transpose(1, 2)
        return own
    result: torch.Tensor = apply_rotary_emb(x, turns, sequence_dim=2)
    return result


def image_modulations(network: Any, joint: Iterable[Any]) -> list[Any]:
    """The modules that compute what modulates the image's stream in the `joint` blocks of a network."""
    if isinstance(network, Flux2Transformer2DModel):  # one for all
        return [network.double_stream_modulation_img]
    return [block.img_mod if isinstance(block, QwenImageTransformerBlock) else block.norm1 for block in joint]


def projected(attn: Any, attended: torch.Tensor) -> torch.Tensor:
    """What comes of attention [B, positions, width] through its output projection."""
    result: torch.Tensor = attn.to_out[1](attn.to_out[0](attended))
    return result
