"""Language models as text encoders: Gemma 2 of Lumina 2, Qwen3 of Z-Image, Qwen2.5-VL of Qwen-Image.

They read a whole text and have no chunks or weights of words. The denoising network reads as many tokens as there are,
for Qwen-Image without those of what stands before every text. A token knows nothing of what comes after it, so texts
are read without padding; embeddings are filled up with zeros, which no network reads.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from transformers import (
    Gemma2Model,
    GemmaTokenizer,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Model,
)

from pipeline.errors import InputError
from pipeline.networks.families import TextPart
from pipeline.prompting.chunks import Chunk, WeightedToken
from pipeline.prompting.plain_text import plain_text
from pipeline.prompting.text_settings import TextSettings

# What checkpoints hold, by kind.
MODELS: dict[str, Any] = {
    "gemma2": Gemma2Model,
    "qwen3": Qwen3Model,
    "qwen2_5_vl": Qwen2_5_VLForConditionalGeneration,
}
_TOKENIZERS: dict[str, Any] = {"gemma2": GemmaTokenizer, "qwen3": Qwen2Tokenizer, "qwen2_5_vl": Qwen2Tokenizer}
_SHOWN = 60


@dataclass(frozen=True)
class LanguageModelTower:
    """One language model with its tokenizer."""

    model: Any
    tokenizer: Any
    part: TextPart

    def chunks(self, text: str, settings: TextSettings) -> list[Chunk]:
        """The tokens of a text as one chunk, marks and template included.

        Raises InputError for a text that is too long.
        """
        return [language_model_tokens(text, self.tokenizer, self.part, settings)]

    def embed(self, chunks: list[Chunk], penultimate: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """The embeddings [B, length, W] of texts, and true [B, length] where one is of a token of its text.

        They are its last layer, after the final norm; with `penultimate` the layer before that, without the norm.
        """
        device = self.model.device
        rows = []
        for chunk in chunks:  # each alone, so that none depends on the length of the others
            tokens = torch.tensor([[item.token for item in chunk]], device=device)
            output = self.model(tokens, output_hidden_states=penultimate, use_cache=False)
            layer = output.hidden_states[-2] if penultimate else output.last_hidden_state
            rows.append(layer[0, self.part.dropped :])
        lengths = torch.tensor([tokens_read(chunk, self.part) for chunk in chunks], device=device)
        read = torch.arange(self.part.length, device=device) < lengths[:, None]
        return torch.stack([F.pad(row, (0, 0, 0, self.part.length - len(row))) for row in rows]), read


def load_language_tokenizer(config: Path, part: TextPart) -> Any:
    """The tokenizer of a language model, beside the configurations in `config`.

    Raises InputError where it has no template for what it has to read as a message, or cuts what stands before a text
    into another number of tokens than are dropped.
    """
    folder = config / part.part.replace("text_encoder", "tokenizer")
    tokenizer = _TOKENIZERS[part.kind].from_pretrained(folder, local_files_only=True)
    if part.chat and tokenizer.chat_template is None:
        raise InputError(
            f"{folder} has no chat template, in which {part.title} reads every text; fetch chat_template.jinja, or a "
            "tokenizer_config.json with chat_template"
        )
    before, _ = part.around
    found = len(tokenizer(before).input_ids) if before else 0
    if found != part.dropped:
        raise InputError(
            f"{folder} makes {found} tokens of what {part.title} is told before each text, and the network was trained "
            f"without the first {part.dropped}; fetch the tokenizer of the checkpoint"
        )
    return tokenizer


def language_model_tokens(text: str, tokenizer: Any, part: TextPart, settings: TextSettings) -> Chunk:
    """The tokens of a text with marks and template, of which the network reads no more than the part's length.

    What a language model is told before prompts alone is a part of `text` (TextEncoder.addressed). Raises InputError.
    """
    words = plain_text(text, settings)
    before, after = part.around
    whole = f"{before}{words}{after}"
    if part.chat:
        message = [{"role": "user", "content": words}]
        # As ZImagePipeline asks for it: an answer that may think, of which nothing is written yet.
        whole = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True, enable_thinking=True)
    # verbose=False: that a text is long is not news here.
    chunk = tuple(WeightedToken(token, 1.0) for token in tokenizer(whole, verbose=False).input_ids)
    if (read := tokens_read(chunk, part)) > part.length:
        own = words.removeprefix(part.system)
        shown = own if len(own) <= _SHOWN else f"{own[:_SHOWN]}..."
        included = "chat template" if part.chat else "system prompt" if part.system else "the end of its message"
        raise InputError(
            f"'{shown}' has {read} tokens of {part.title}, {included} included, and {part.length} are read; shorten it"
        )
    return chunk


def tokens_read(chunk: Chunk, part: TextPart) -> int:
    """How many embeddings of a text's tokens the network reads."""
    return len(chunk) - part.dropped
