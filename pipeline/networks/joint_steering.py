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
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.transformers.transformer_flux import FluxSingleTransformerBlock

from pipeline.guidance.attention_space import NAG, NASA, VSF
from pipeline.networks.attention_space import normalized, subtracted
from pipeline.networks.joint_blocks import normed, projected, split, text_heads
from pipeline.networks.perturbation import processed_by, replaced_by, transformer_blocks
from pipeline.networks.text.conditioning import Conditioning

Combine = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def with_second_text(conditioning: Conditioning, how: NAG | VSF | NASA) -> Conditioning:
    """What a steered transformer is told, [2 rows, ...]: of the prompts, then of the second texts.

    The second text's stream is modulated by its own pooled embedding, with vsf by the prompt's, as the authors have it.
    """
    second = {name: conditioning[name] for name in ("tokens", "pooled", "embedded_guidance") if name in conditioning}
    second["tokens"] = conditioning["negative_tokens"]
    if not isinstance(how, VSF):
        second["pooled"] = conditioning["negative_pooled"]
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
    positions = extent[0] * extent[1]
    with ExitStack() as undo:
        for name, block in transformer_blocks(network, None).items():
            processed_by(_SteeredAttention(how if name in chosen else None, positions, unpadded), block.attn, undo)
            if isinstance(block, FluxSingleTransformerBlock):
                replaced_by(_of_one_image(block.forward), block, undo)
            else:
                replaced_by(_modulated_as_the_prompt(block.norm1.forward), block.norm1, undo)
        last: Any = network.get_submodule("norm_out")
        replaced_by(_modulated_as_the_prompt(last.forward), last, undo)
        yield


def _modulated_as_the_prompt(own: Callable[..., Any]) -> Callable[..., Any]:
    """A norm of the image, which has the rows of the prompts alone."""

    def forward(x: torch.Tensor, *conditions: torch.Tensor, **more: torch.Tensor) -> Any:
        kept = {name: value[: len(x)] for name, value in more.items()}
        return own(x, *(value[: len(x)] for value in conditions), **kept)

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
        **_: object,
    ) -> Any:
        own = split(attn, attn.to_q(hidden_states), attn.to_k(hidden_states), attn.to_v(hidden_states))
        own = normed(attn.norm_q, attn.norm_k, *own)
        if encoder_hidden_states is None:
            length = hidden_states.shape[1] - self.positions
            rows = len(hidden_states) // 2
            text, image = [x[:, :, :length] for x in own], [x[:rows, :, length:] for x in own]
        else:
            length, image = encoder_hidden_states.shape[1], list(own)
            text = list(text_heads(attn, encoder_hidden_states))
        if image_rotary_emb is not None:
            for streams, part in ((text, slice(None, length)), (image, slice(length, None))):
                turns = tuple(x[part] for x in image_rotary_emb)
                streams[:2] = [apply_rotary_emb(x, turns, sequence_dim=2) for x in streams[:2]]
        of_text, of_image = self._of_text(text, image), self._of_image(text, image)
        if encoder_hidden_states is None:
            return torch.cat([of_text, of_image.repeat(2, 1, 1)], 1)
        return projected(attn, of_image), of_text if attn.context_pre_only else attn.to_add_out(of_text)

    def _of_text(self, text: list[torch.Tensor], image: list[torch.Tensor]) -> torch.Tensor:
        """What each text reads from itself and the image, [2 rows, L, width]."""
        query, *_ = text
        key, value = (
            torch.cat([own, other.repeat(2, 1, 1, 1)], 2) for own, other in zip(text[1:], image[1:], strict=True)
        )
        mask = None
        if self.unpadded is not None:  # the second texts without their padding
            read = torch.cat([torch.ones_like(self.unpadded), self.unpadded]).to(query.device)
            mask = F.pad(read, (0, self.positions), value=True)[:, None, None]
        return _merged(F.scaled_dot_product_attention(query, key, value, attn_mask=mask))

    def _of_image(self, text: list[torch.Tensor], image: list[torch.Tensor]) -> torch.Tensor:
        """What the image reads, [rows, positions, width]."""
        rows = len(image[0])
        query, *own = image
        (key, value), (second_key, second_value) = (
            [x[part] for x in text[1:]] for part in (slice(rows), slice(rows, None))
        )

        def read(
            keys: list[torch.Tensor], values: list[torch.Tensor], bias: torch.Tensor | None = None
        ) -> torch.Tensor:
            attended = F.scaled_dot_product_attention(query, torch.cat(keys, 2), torch.cat(values, 2), attn_mask=bias)
            return _merged(attended)

        if isinstance(self.how, VSF):
            away = torch.full((rows, second_key.shape[2]), -self.how.bias, dtype=query.dtype, device=query.device)
            if self.unpadded is not None:
                away = away.masked_fill(~self.unpadded.to(query.device), -torch.inf)
            bias = F.pad(away, (key.shape[2] + self.positions, 0))[:, None, None]
            return read([key, own[0], second_key], [value, own[1], -self.how.scale * second_value], bias)
        positive = read([key, own[0]], [value, own[1]])
        if self.how is None:
            return positive
        negative = read([second_key, own[0]], [second_value, own[1]])
        if isinstance(self.how, NAG):
            return normalized(positive, negative, self.how.scale, self.how.tau, self.how.alpha)
        return subtracted(positive, negative, self.how.scale)


def _merged(x: torch.Tensor) -> torch.Tensor:
    return x.transpose(1, 2).flatten(2)
