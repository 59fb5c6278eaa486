"""Language models as text encoders: Gemma 2 of Lumina 2, Qwen3 of Z-Image.

They read a whole text, each token with those before it, and have no chunks or weights of words. The denoising network
attends to the tokens of the text alone, as many as there are. A token knows nothing of what comes after it, so texts
are read without padding; embeddings are filled up with zeros, which no network reads.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import Gemma2Model, GemmaTokenizer, Qwen2Tokenizer, Qwen3Model

from pipeline.errors import InputError
from pipeline.networks.families import TextPart
from pipeline.prompting.chunks import Chunk, WeightedToken
from pipeline.prompting.plain_text import plain_text
from pipeline.prompting.text_settings import TextSettings

MODELS: dict[str, Any] = {"gemma2": Gemma2Model, "qwen3": Qwen3Model}
_TOKENIZERS: dict[str, Any] = {"gemma2": GemmaTokenizer, "qwen3": Qwen2Tokenizer}
_SHOWN = 60


@dataclass(frozen=True)
class LanguageModelTower:
    """One language model with its tokenizer, read at its last layer but one, without the final norm."""

    model: Any
    tokenizer: Any
    part: TextPart

    @property
    def length(self) -> int:
        """The tokens that embeddings of a text are filled up to."""
        return self.part.length

    def chunks(self, text: str, settings: TextSettings) -> list[Chunk]:
        """The tokens of a text as one chunk, marks and template included.

        Raises InputError for a text that is too long.
        """
        return [language_model_tokens(text, self.tokenizer, self.part, settings)]

    def embed(self, chunks: list[Chunk]) -> tuple[torch.Tensor, torch.Tensor]:
        """The embeddings [B, length, W] of texts, and true [B, length] where one is of a token of its text."""
        device = self.model.device
        rows = [torch.tensor([item.token for item in chunk], device=device) for chunk in chunks]
        lengths = torch.tensor([len(row) for row in rows], device=device)
        read = torch.arange(self.length, device=device) < lengths[:, None]
        longest = int(lengths.max())
        output = self.model(
            pad_sequence(rows, batch_first=True),
            attention_mask=read[:, :longest].long(),
            output_hidden_states=True,
            use_cache=False,
        )
        embedding = output.hidden_states[-2] * read[:, :longest, None]
        return F.pad(embedding, (0, 0, 0, self.length - longest)), read


def load_language_tokenizer(config: Path, part: TextPart) -> Any:
    """The tokenizer of a language model, beside the configurations in `config`.

    Raises InputError where it has no template for what it has to read as a message.
    """
    folder = config / part.part.replace("text_encoder", "tokenizer")
    tokenizer = _TOKENIZERS[part.kind].from_pretrained(folder, local_files_only=True)
    if part.chat and tokenizer.chat_template is None:
        raise InputError(
            f"{folder} has no chat template, in which {part.title} reads every text; fetch chat_template.jinja, or a "
            "tokenizer_config.json with chat_template"
        )
    return tokenizer


def language_model_tokens(text: str, tokenizer: Any, part: TextPart, settings: TextSettings) -> Chunk:
    """The tokens of a text with marks and template, no more than the part's length. Raises InputError.

    What a language model is told before each prompt is a part of `text` (TextEncoder.addressed).
    """
    words = plain_text(text, settings)
    whole = words
    if part.chat:
        message = [{"role": "user", "content": words}]
        # As ZImagePipeline asks for it: an answer that may think, of which nothing is written yet.
        whole = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True, enable_thinking=True)
    # verbose=False: that a text is long is not news here.
    tokens = tokenizer(whole, verbose=False).input_ids
    if len(tokens) > part.length:
        own = words.removeprefix(part.system)
        shown = own if len(own) <= _SHOWN else f"{own[:_SHOWN]}..."
        around = "chat template" if part.chat else "system prompt"
        raise InputError(
            f"'{shown}' has {len(tokens)} tokens of {part.title}, {around} included, and {part.length} are read; "
            "shorten it"
        )
    return tuple(WeightedToken(token, 1.0) for token in tokens)
