"""Attention of Lumina 2 and Z-Image that reads a second text beside the prompt, for one evaluation.

Text and image are one stream in these networks, with positions that depend on the text. So each text has a whole stream
with a copy of the image: the streams of the prompts, and after them those of the second texts. Each text attends to
itself and to its copy, as without steering. What the image attends to is combined from both, by `nag` and `nasa` (Z+
and Z- of pipeline/guidance/attention_space.py), and both copies are given the result, so they stay equal. With `vsf`
the prompt's copy reads its own stream and the second text's words, with their values turned round.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.transformers.transformer_z_image import SEQ_MULTI_OF

from pipeline.errors import InputError
from pipeline.guidance.attention_space import NAG, NASA, VSF
from pipeline.networks.attention_space import normalized, subtracted
from pipeline.networks.joint_blocks import projected
from pipeline.networks.perturbation import processed_by, transformer_blocks
from pipeline.networks.stream_blocks import ImageOfStream, attention_of, stream_heads, stream_turns, turned
from pipeline.networks.text.conditioning import Conditioning

# Blocks with the image alone, which no text reaches.
_IMAGE_ALONE = "noise_refiner"


@contextmanager
def streams_steered(
    network: torch.nn.Module,
    how: NAG | VSF | NASA,
    conditioning: Conditioning,
    extent: tuple[int, int],
    starts: Sequence[int] | None,
) -> Iterator[None]:
    """The transformer is steered inside the `with`, given streams of all texts, and as it was after it.

    `conditioning` is told with the second texts after the prompts (joint_steering.with_second_text). `extent` is
    (height, width) of the image in patches, and `starts` where it begins in each stream, None for 0.
    Raises InputError where no block with a text lies under the layers.
    """
    chosen, blocks = blocks_with_text(network, how.layers), blocks_with_text(network, None)
    image = ImageOfStream(extent, starts)
    # In Z-Image texts follow the image, which is filled up.
    begin = 0 if starts is not None else image.size + -image.size % SEQ_MULTI_OF
    lengths = conditioning["read"].sum(1)
    words = SecondWords(begin, lengths[len(lengths) // 2 :])
    with ExitStack() as undo:
        for name, block in blocks.items():
            processed_by(_SteeredStream(how if name in chosen else None, image, words), attention_of(block), undo)
        yield


def blocks_with_text(network: torch.nn.Module, layers: tuple[str, ...] | None) -> dict[str, Any]:
    """The transformer blocks under `layers` by name that hold a text beside the image, all of them where that is None.

    Raises InputError where there is none.
    """
    found = {
        name: block for name, block in transformer_blocks(network, layers).items() if not name.startswith(_IMAGE_ALONE)
    }
    if not found:
        others = ", ".join(blocks_with_text(network, None))
        raise InputError(f"blocks under {', '.join(layers or ())} read no text; take some of {others}")
    return found


class SecondWords:
    """Where the words of the second texts lie in their streams: from `begin` on, `lengths` [rows] of them."""

    def __init__(self, begin: int, lengths: torch.Tensor):
        self.places = slice(begin, begin + int(lengths.max()))
        self.read = torch.arange(int(lengths.max()), device=lengths.device) < lengths[:, None]  # [rows, words]


class _SteeredStream:
    """Attention of a block; `how` is None where the image reads its prompt alone."""

    def __init__(self, how: NAG | VSF | NASA | None, image: ImageOfStream, words: SecondWords):
        self.how, self.image, self.words = how, image, words

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
        turns = stream_turns(image_rotary_emb, freqs_cis)
        query, key, value = stream_heads(attn, attn.to_q(hidden_states), hidden_states)  # [2 rows, ...]
        query = turned(query, turns)
        mask = None if attention_mask is None else attention_mask.bool()[:, None, None]
        attended = _attended(query, turned(key, turns), value, mask)
        positive, negative = self.image.of(attended).chunk(2)
        if isinstance(self.how, VSF):
            image = self._turned_round(self.how, query, key, value, turns, mask)
        elif isinstance(self.how, NAG):
            image = normalized(positive, negative, self.how.scale, self.how.tau, self.how.alpha)
        elif self.how is not None:
            image = subtracted(positive, negative, self.how.scale)
        else:
            image = positive
        return projected(attn, self.image.replaced(attended, image.repeat(2, 1, 1)))

    def _turned_round(
        self,
        how: VSF,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        turns: torch.Tensor,
        mask: torch.Tensor | None,
    ) -> torch.Tensor:
        """What the prompt's copy of the image [rows, positions, width] reads from its stream and the second's words.

        The two copies stand at different positions, by as many as the texts differ in length. Words are turned by that
        much more, so that they lie as far from the prompt's copy as from their own.
        """
        rows = len(query) // 2
        begins = torch.tensor(list(self.image.starts(query)), device=turns.device)
        first = turns[torch.arange(2 * rows, device=turns.device), begins]  # of the image's first position
        apart = first[:rows] * first[rows:].conj()
        places = self.words.places
        words = turned(key[rows:, places], turns[rows:, places] * apart[:, None])
        read = self.words.read.to(query.device)[:, None, None]
        away = torch.full(read.shape, -how.bias, dtype=query.dtype, device=query.device).masked_fill(~read, -torch.inf)
        near = away.new_zeros(rows, 1, 1, key.shape[1])
        if mask is not None:
            near = near.masked_fill(~mask[:rows], -torch.inf)
        return _attended(
            self.image.of(query)[:rows],
            torch.cat([turned(key[:rows], turns[:rows]), words], 1),
            torch.cat([value[:rows], -how.scale * value[rows:, places]], 1),
            torch.cat([near, away], -1),
        )


def _attended(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """What queries [B, positions, heads, depth] read, [B, positions, width]; Lumina 2 has fewer heads of keys."""
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))
    attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True)
    return attended.transpose(1, 2).flatten(2)
