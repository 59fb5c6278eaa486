"""Joint attention of a transformer that reads a second text beside the prompt, for one evaluation.

The text stream has twice the rows of the image's, those of the prompts and then those of the second texts. Each text
attends to itself and to the image, never to the other. The image's one row for both reads Z+ from prompt and image, Z-
from second text and image, and `nag` and `nasa` make one of the two; with `vsf` it reads all three at once, the second
text's values turned round (pipeline/guidance/attention_space.py). In blocks that are not chosen the image reads its
prompt alone. These are the authors' masks (for FLUX arXiv 2505.21179, for SD3 and FLUX arXiv 2508.10931), but that both
of NAG's readings have the same queries in single-stream blocks as well.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.transformers.transformer_flux import FluxSingleTransformerBlock

from pipeline.guidance.attention_space import NAG, NASA, VSF
from pipeline.networks.attention_space import normalized, subtracted
from pipeline.networks.joint_blocks import (
    image_modulations,
    normed,
    of_stream,
    of_texts,
    projected,
    projections,
    readable,
    split,
    text_heads,
    turned,
    turns_of,
)
from pipeline.networks.perturbation import processed_by, replaced_by, transformer_blocks
from pipeline.networks.stream_blocks import is_stream_block
from pipeline.networks.text.conditioning import Conditioning

Combine = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def with_second_text(conditioning: Conditioning, how: NAG | VSF | NASA) -> Conditioning:
    """What a steered transformer is told, [2 rows, ...]: of the prompts, then of the second texts.

    The second text's stream is modulated by its own pooled embedding, with vsf by the prompt's, as the authors have it.
    """
    second = {name: conditioning[name] for name in ("pooled", "embedded_guidance") if name in conditioning}
    for name in ("tokens", "read") if isinstance(how, VSF) else ("tokens", "read", "pooled"):
        if f"negative_{name}" in conditioning:
            second[name] = conditioning[f"negative_{name}"]
    return Conditioning(
        {name: torch.cat([conditioning[name], own.to(conditioning[name])]) for name, own in second.items()}
    )


@contextmanager
def jointly_steered(
    network: torch.nn.Module, how: NAG | VSF | NASA, conditioning: Conditioning, extent: tuple[int, int]
) -> Iterator[None]:
    """The transformer is steered inside the `with`, given texts by `with_second_text`, and as it was after it.

    `extent` is (height, width) of the image in patches. Raises InputError where no block lies under the layers.
    """
    chosen = transformer_blocks(network, how.layers)
    unpadded = conditioning.get("negative_unpadded") if isinstance(how, VSF) else None
    rows, positions = len(conditioning["tokens"]), extent[0] * extent[1]
    blocks = transformer_blocks(network, None)
    joint = [
        block
        for block in blocks.values()
        if not is_stream_block(block) and not isinstance(block, FluxSingleTransformerBlock)
    ]
    with ExitStack() as undo:
        for name, block in blocks.items():
            processed_by(_SteeredAttention(how if name in chosen else None, positions, unpadded), block.attn, undo)
            if isinstance(block, FluxSingleTransformerBlock):
                replaced_by(_of_one_image(block.forward), block, undo)
        for modulation in image_modulations(network, joint):
            replaced_by(_of_the_prompts(modulation.forward, rows), modulation, undo)
        if any(is_stream_block(block) for block in blocks.values()):
            # They are given one sequence of text and image, so what comes before them gives as many of both.
            replaced_by(_of_two_images(joint[-1].forward), joint[-1], undo)
        last: Any = network.get_submodule("norm_out")
        replaced_by(_of_the_prompts(last.forward, rows), last, undo)
        yield


def _of_the_prompts(own: Callable[..., Any], rows: int) -> Callable[..., Any]:
    """A norm or modulation of the image, which has the rows of the prompts alone."""

    def forward(*values: torch.Tensor, **more: torch.Tensor) -> Any:
        return own(*(value[:rows] for value in values), **{name: value[:rows] for name, value in more.items()})

    return forward


def _of_two_images(own: Callable[..., tuple[torch.Tensor, torch.Tensor]]) -> Callable[..., Any]:
    """A block with a stream each for text and image that gives the image once for each of its texts."""

    def forward(*states: torch.Tensor, **more: Any) -> Any:
        text, image = own(*states, **more)
        return text, image.repeat(2, 1, 1)

    return forward


def _of_one_image(own: Callable[..., tuple[torch.Tensor, torch.Tensor]]) -> Callable[..., Any]:
    """A single-stream block whose one stream holds the image once for each of its texts."""

    def forward(hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor, **more: Any) -> Any:
        rows = len(hidden_states)
        twice = hidden_states.repeat(2, 1, 1)
        text, image = own(hidden_states=twice, encoder_hidden_states=encoder_hidden_states, **more)
        return text, image[:rows]

    return forward


class _SteeredAttention:
    """Attention of a block; `how` is None where the image reads its prompt alone."""

    def __init__(self, how: NAG | VSF | NASA | None, positions: int, unpadded: torch.Tensor | None):
        self.how, self.positions, self.unpadded = how, positions, unpadded

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
        encoder_hidden_states_mask: torch.Tensor | None = None,
        **_: object,
    ) -> Any:
        states, beside = projections(attn, hidden_states)
        own = normed(attn.norm_q, attn.norm_k, *split(attn, *states))
        if encoder_hidden_states is None:
            length = hidden_states.shape[1] - self.positions
            rows = len(hidden_states) // 2
            text, image = [x[:, :, :length] for x in own], [x[:rows, :, length:] for x in own]
        else:
            length, image = encoder_hidden_states.shape[1], list(own)
            text = list(text_heads(attn, encoder_hidden_states))
        if image_rotary_emb is not None:
            turns = turns_of(image_rotary_emb)
            for streams, part in ((text, slice(None, length)), (image, slice(length, None))):
                streams[:2] = [turned(x, tuple(turn[part] for turn in turns)) for x in streams[:2]]
        read = readable(attention_mask, encoder_hidden_states_mask, self.positions)
        of_text, of_image = self._of_text(text, image, read), self._of_image(text, image, read)
        if encoder_hidden_states is None:
            return of_stream(attn, torch.cat([of_text, of_image.repeat(2, 1, 1)], 1), beside)
        return projected(attn, of_image), of_texts(attn, of_text)

    def _of_text(self, text: list[torch.Tensor], image: list[torch.Tensor], mask: torch.Tensor | None) -> torch.Tensor:
        """What each text reads from itself and the image, [2 rows, L, width]; `mask` [2 rows, 1, 1, L + positions]."""
        query, *_ = text
        key, value = (
            torch.cat([own, other.repeat(2, 1, 1, 1)], 2) for own, other in zip(text[1:], image[1:], strict=True)
        )
        if self.unpadded is not None:  # the second texts without their padding
            unpadded = self.unpadded[:, : query.shape[2]]
            read = torch.cat([torch.ones_like(unpadded), unpadded]).to(query.device)
            read = F.pad(read, (0, self.positions), value=True)[:, None, None]
            mask = read if mask is None else mask & read
        return _merged(F.scaled_dot_product_attention(query, key, value, attn_mask=mask))

    def _of_image(self, text: list[torch.Tensor], image: list[torch.Tensor], mask: torch.Tensor | None) -> torch.Tensor:
        """What the image reads, [rows, positions, width]; `mask` [2 rows, 1, 1, L + positions]."""
        rows = len(image[0])
        query, *own = image
        (key, value), (second_key, second_value) = (
            [x[part] for x in text[1:]] for part in (slice(rows), slice(rows, None))
        )
        own_mask, second_mask = (None, None) if mask is None else (mask[:rows], mask[rows:])

        def read(
            keys: list[torch.Tensor], values: list[torch.Tensor], bias: torch.Tensor | None = None
        ) -> torch.Tensor:
            attended = F.scaled_dot_product_attention(query, torch.cat(keys, 2), torch.cat(values, 2), attn_mask=bias)
            return _merged(attended)

        if isinstance(self.how, VSF):
            length = second_key.shape[2]
            away = torch.full((rows, 1, 1, length), -self.how.bias, dtype=query.dtype, device=query.device)
            if self.unpadded is not None:
                unpadded = self.unpadded[:, :length].to(query.device)
                away = away.masked_fill(~unpadded[:, None, None], -torch.inf)
            near = away.new_zeros(rows, 1, 1, key.shape[2] + self.positions)
            if own_mask is not None and second_mask is not None:
                near = near.masked_fill(~own_mask, -torch.inf)
                away = away.masked_fill(~second_mask[..., :length], -torch.inf)
            bias = torch.cat([near, away], -1)
            return read([key, own[0], second_key], [value, own[1], -self.how.scale * second_value], bias)
        positive = read([key, own[0]], [value, own[1]], own_mask)
        if self.how is None:
            return positive
        negative = read([second_key, own[0]], [second_value, own[1]], second_mask)
        if isinstance(self.how, NAG):
            return normalized(positive, negative, self.how.scale, self.how.tau, self.how.alpha)
        return subtracted(positive, negative, self.how.scale)


def _merged(x: torch.Tensor) -> torch.Tensor:
    return x.transpose(1, 2).flatten(2)
