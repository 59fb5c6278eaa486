"""Qwen2.5-VL as Qwen-Image's text encoder: it reads a text as a message that asks for an image to be described.

The network reads its embeddings from the message on; those of what stands before it are dropped. A token knows nothing
of what comes after it, so texts are read without padding; embeddings are filled up with zeros, which the network does
not read. There are no chunks or weights of words.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.modular_pipelines.qwenimage.prompt_templates import (
    QWENIMAGE_PROMPT_TEMPLATE,
    QWENIMAGE_PROMPT_TEMPLATE_START_IDX,
)
from transformers import Qwen2Tokenizer

from pipeline.errors import InputError
from pipeline.networks.families import TextPart
from pipeline.prompting.chunks import Chunk, WeightedToken
from pipeline.prompting.plain_text import plain_text
from pipeline.prompting.text_settings import TextSettings

_BEFORE, _AFTER = QWENIMAGE_PROMPT_TEMPLATE.split("{}")
# Tokens of what stands before a text.
_DROPPED = QWENIMAGE_PROMPT_TEMPLATE_START_IDX
_SHOWN = 60


@dataclass(frozen=True)
class QwenTower:
    """The language model of one Qwen2.5-VL with its tokenizer, read at its last layer, after the final norm.

    Embeddings of a text are filled up to `length`.
    """

    model: Any
    tokenizer: Any
    length: int

    def chunks(self, text: str, settings: TextSettings) -> list[Chunk]:
        """The tokens of a text as one chunk, template included. Raises InputError for a text that is too long."""
        return [qwen_tokens(text, self.tokenizer, self.length, settings)]

    def embed(self, chunks: list[Chunk]) -> tuple[torch.Tensor, torch.Tensor]:
        """The embeddings [B, length, W] of texts, and true [B, length] where one is of a token of its text."""
        device = self.model.device
        rows = []
        for chunk in chunks:  # each alone, so that none depends on the length of the others
            tokens = torch.tensor([[item.token for item in chunk]], device=device)
            rows.append(self.model(tokens, use_cache=False).last_hidden_state[0, _DROPPED:])
        lengths = torch.tensor([len(row) for row in rows], device=device)
        read = torch.arange(self.length, device=device) < lengths[:, None]
        return torch.stack([F.pad(row, (0, 0, 0, self.length - len(row))) for row in rows]), read

    def words(self, chunk: Chunk, marks: bool) -> int:
        """How many embeddings of a text are of its words, or of these and what ends the message."""
        after = 0 if marks else len(self.tokenizer(_AFTER).input_ids)
        return len(chunk) - int(_DROPPED) - after


def load_qwen_tokenizer(config: Path, part: TextPart) -> Any:
    """The tokenizer of a Qwen2.5-VL, beside the configurations in `config`.

    Raises InputError where it cuts what stands before a text into another number of tokens than are dropped.
    """
    folder = config / part.part.replace("text_encoder", "tokenizer")
    tokenizer = Qwen2Tokenizer.from_pretrained(folder, local_files_only=True)
    found = len(tokenizer(_BEFORE).input_ids)
    if found != _DROPPED:
        raise InputError(
            f"{folder} makes {found} tokens of what {part.title} is told before each text, and the network was trained "
            f"without the first {_DROPPED}; fetch the tokenizer of the checkpoint"
        )
    return tokenizer


def qwen_tokens(text: str, tokenizer: Any, length: int, settings: TextSettings) -> Chunk:
    """The tokens of a text with its template, of which the network reads no more than `length`. Raises InputError."""
    words = plain_text(text, settings)
    # verbose=False: that a text is long is not news here.
    tokens = tokenizer(f"{_BEFORE}{words}{_AFTER}", verbose=False).input_ids
    if len(tokens) - _DROPPED > length:
        shown = words if len(words) <= _SHOWN else f"{words[:_SHOWN]}..."
        raise InputError(
            f"'{shown}' has {len(tokens) - _DROPPED} tokens of Qwen2.5-VL, the end of its message included, and "
            f"{length} are read; shorten it"
        )
    return tuple(WeightedToken(token, 1.0) for token in tokens)
