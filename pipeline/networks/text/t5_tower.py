"""T5: reads a whole text and has no marks, chunks or weights of words.

Pipelines fill every text up to one length with padding, so texts of all lengths have embeddings of one length here.
Those of SD3 and FLUX have T5 and the network read the padding as any token, and the networks were trained on that;
Chroma's mask it.
"""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers.utils.torch_utils import get_module_execution_device
from transformers import T5EncoderModel

from pipeline.errors import InputError
from pipeline.prompting.chunks import Chunk, WeightedToken
from pipeline.prompting.plain_text import plain_text
from pipeline.prompting.text_settings import TextSettings

_SHOWN = 60


@dataclass(frozen=True)
class T5Tower:
    """One T5 encoder with its tokenizer; texts are `length` tokens long, the end mark included.

    `masked`: T5 reads no padding, and the network the first token of it alone.
    """

    model: T5EncoderModel
    tokenizer: Any
    length: int
    masked: bool = False

    def chunks(self, text: str, settings: TextSettings) -> list[Chunk]:
        """The tokens of a text as one chunk, without the end mark. Raises InputError for a text that is too long."""
        return [t5_tokens(text, self.tokenizer, self.length, settings)]

    def embed(self, chunks: list[Chunk]) -> torch.Tensor:
        """The embeddings [B, length, W] of texts."""
        end, pad = self.tokenizer.eos_token_id, self.tokenizer.pad_token_id
        filled = [[*(item.token for item in chunk), end, *[pad] * (self.length - 1 - len(chunk))] for chunk in chunks]
        mask = self._first(chunks, 1) if self.masked else None
        tokens = torch.tensor(filled, device=get_module_execution_device(self.model))
        embedding: torch.Tensor = self.model(tokens, mask)[0]
        return embedding

    def read(self, chunks: list[Chunk]) -> torch.Tensor:
        """True [B, length] where the network reads an embedding: that of a word, the end mark or the first padding."""
        return self._first(chunks, 2)

    def _first(self, chunks: list[Chunk], more: int) -> torch.Tensor:
        device = get_module_execution_device(self.model)
        ends = torch.tensor([len(chunk) + more for chunk in chunks], device=device)
        return torch.arange(self.length, device=device) < ends[:, None]


def t5_tokens(text: str, tokenizer: Any, length: int, settings: TextSettings) -> Chunk:
    """The tokens of a text, which with its end mark must be no more than `length`. Raises InputError."""
    words = plain_text(text, settings)
    # verbose=False: that a text is longer than T5's training is not news here.
    tokens = tokenizer(words, add_special_tokens=False, verbose=False).input_ids
    if len(tokens) >= length:
        shown = words if len(words) <= _SHOWN else f"{words[:_SHOWN]}..."
        raise InputError(
            f"'{shown}' has {len(tokens) + 1} tokens of T5, end mark included, and text.t5_length is {length}; "
            "shorten it, or set text.t5_length (at most 512)"
        )
    return tuple(WeightedToken(token, 1.0) for token in tokens)
