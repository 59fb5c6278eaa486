"""Language models as text encoders: Gemma 2 of Lumina 2, Qwen3 of Z-Image and FLUX.2 klein, Qwen2.5-VL, Mistral 3.

They read a whole text and have no chunks or weights of words. The denoising network reads as many tokens as there are,
for Qwen-Image without those of what stands before every text. A token knows nothing of what comes after it, so texts
are read without padding; embeddings are filled up with zeros, which no network reads. FLUX.2 was trained to read
padding, before the text or after it as the tokenizer has it, so its language models are given that.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from diffusers.utils.torch_utils import get_module_execution_device
from transformers import (
    Gemma2Model,
    GemmaTokenizer,
    Mistral3ForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Model,
)

from pipeline.errors import InputError
from pipeline.networks.families import TextPart
from pipeline.prompting.chunks import Chunk, WeightedToken
from pipeline.prompting.plain_text import plain_text
from pipeline.prompting.text_settings import TextSettings


class WordlessQwen3(Qwen3Model):  # type: ignore[misc]
    """Qwen3 without the layer that makes words of embeddings, which some checkpoints hold."""

    _keys_to_ignore_on_load_unexpected: ClassVar = [r"lm_head\."]


# What checkpoints hold, by kind.
MODELS: dict[str, Any] = {
    "gemma2": Gemma2Model,
    "qwen3": WordlessQwen3,
    "qwen2_5_vl": Qwen2_5_VLForConditionalGeneration,
    "mistral3": Mistral3ForConditionalGeneration,
}
# Those that also see images, which they are not shown here.
SEEING = ("qwen2_5_vl", "mistral3")
_TOKENIZERS: dict[str, Any] = {
    "gemma2": GemmaTokenizer,
    "qwen3": Qwen2Tokenizer,
    "qwen2_5_vl": Qwen2Tokenizer,
    "mistral3": PreTrainedTokenizerFast,  # as PixtralProcessor: tokenizer.json as it is, whatever class is named
}
# What stands for an image in the texts of Mistral 3; Flux2Pipeline takes it out of prompts.
_IMAGE = "[IMG]"
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

    def embed(self, chunks: list[Chunk], penultimate: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The embeddings [B, length, W] of texts, and true [B, length] where one is read; None where all are.

        They are its last layer, after the final norm; with `penultimate` the layer before that, without the norm; or
        the `layers` of its part side by side.
        """
        rows = [self._embedded(chunk, penultimate) for chunk in chunks]  # each alone: none depends on the others
        if self.part.padded:
            return torch.stack(rows), None
        device = get_module_execution_device(self.model)
        lengths = torch.tensor([tokens_read(chunk, self.part) for chunk in chunks], device=device)
        read = torch.arange(self.part.length, device=device) < lengths[:, None]
        return torch.stack([F.pad(row, (0, 0, 0, self.part.length - len(row))) for row in rows]), read

    def places(self, chunk: Chunk) -> slice:
        """Where the embeddings of a text's own tokens lie among all of them."""
        read = tokens_read(chunk, self.part)
        if self.part.padded and self.tokenizer.padding_side == "left":
            return slice(self.part.length - read, None)
        return slice(read)

    def _embedded(self, chunk: Chunk, penultimate: bool) -> torch.Tensor:
        """The embeddings [tokens, W] of one text."""
        device, own = get_module_execution_device(self.model), None
        tokens = torch.tensor([[item.token for item in chunk]], device=device)
        if self.part.padded:
            around = (0, self.part.length - len(chunk))
            if self.tokenizer.padding_side == "left":
                around = around[::-1]
            own = F.pad(torch.ones_like(tokens), around)
            tokens = F.pad(tokens, around, value=self.tokenizer.pad_token_id)
        stacked = self.part.layers
        output = self.model(
            tokens, attention_mask=own, output_hidden_states=penultimate or bool(stacked), use_cache=False
        )
        layer: torch.Tensor
        if stacked:
            layer = torch.cat([output.hidden_states[k] for k in stacked], -1)
        else:
            layer = output.hidden_states[-2] if penultimate else output.last_hidden_state
        return layer[0, self.part.dropped :]


def load_language_tokenizer(config: Path, part: TextPart) -> Any:
    """The tokenizer of a language model, beside the configurations in `config`.

    Raises InputError where it has no template for what it has to read as a message, no token for padding that is read,
    or cuts what stands before a text into another number of tokens than are dropped.
    """
    folder = config / part.part.replace("text_encoder", "tokenizer")
    tokenizer = _TOKENIZERS[part.kind].from_pretrained(folder, local_files_only=True)
    if part.chat is not None and tokenizer.chat_template is None:
        raise InputError(
            f"{folder} has no chat template, in which {part.title} reads every text; fetch chat_template.jinja, or a "
            "tokenizer_config.json with chat_template"
        )
    if part.kind == "mistral3" and "padding_side" not in tokenizer.init_kwargs:
        tokenizer.padding_side = "left"  # where FLUX.2 was trained with it; transformers 5 has another default
    if part.padded and tokenizer.pad_token_id is None:
        raise InputError(f"{folder} has no token for padding, which the network reads; fetch tokenizer_config.json")
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
    whole, marks = f"{before}{words}{after}", True
    if part.chat is not None:
        whole = tokenizer.apply_chat_template(_messages(words, part), tokenize=False, **part.chat)
        # A template may have written the mark that a text begins with (transformers' ProcessorMixin).
        marks = tokenizer.bos_token is None or not whole.startswith(tokenizer.bos_token)
    # verbose=False: that a text is long is not news here.
    tokens = tokenizer(whole, add_special_tokens=marks, verbose=False).input_ids
    chunk = tuple(WeightedToken(token, 1.0) for token in tokens)
    if (read := tokens_read(chunk, part)) > part.length:
        own = words.removeprefix(part.system)
        shown = own if len(own) <= _SHOWN else f"{own[:_SHOWN]}..."
        included = (
            "chat template" if part.chat is not None else "system prompt" if part.system else "the end of its message"
        )
        raise InputError(
            f"'{shown}' has {read} tokens of {part.title}, {included} included, and {part.length} are read; shorten it"
        )
    return chunk


def _messages(words: str, part: TextPart) -> list[dict[str, Any]]:
    if not part.instruction:
        return [{"role": "user", "content": words}]
    # As Flux2Pipeline has them.
    said = {"system": part.instruction, "user": words.replace(_IMAGE, "")}
    return [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in said.items()]


def tokens_read(chunk: Chunk, part: TextPart) -> int:
    """How many embeddings of a text's tokens the network reads."""
    return len(chunk) - part.dropped
