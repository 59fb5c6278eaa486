"""CLIP as a text encoder: it reads a text in chunks of its context, whose words may have weights."""

from dataclasses import dataclass
from functools import cached_property

from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from pipeline.prompting.chunks import Chunk, WeightedToken, cut
from pipeline.prompting.emphasis import parse
from pipeline.prompting.text_settings import TextSettings
from pipeline.prompting.underscores import spaced


@dataclass(frozen=True)
class ClipTower:
    """One CLIP text transformer with its tokenizer.

    A text's pooled embedding is the projection of its end mark, where the model has one, or (`pools_end`) its last
    layer there as it is. `read`: whether the denoising network reads the embeddings of its tokens.
    """

    model: CLIPTextModel | CLIPTextModelWithProjection
    tokenizer: CLIPTokenizer
    pools_end: bool = False
    read: bool = True

    @property
    def context(self) -> int:
        """Tokens that it reads at once, its begin and end marks included: 77 for CLIP."""
        return min(int(self.tokenizer.model_max_length), int(self.model.config.max_position_embeddings))

    @cached_property
    def comma(self) -> int | None:
        """The comma's token, where the vocabulary has one."""
        token: int | None = self.tokenizer.get_vocab().get(",</w>")
        return token

    def chunks(self, text: str, settings: TextSettings) -> list[Chunk]:
        """The chunks of a text, without begin and end marks."""
        prompt = parse(text, settings.syntax)
        spans = [span for section in prompt for span in section]
        words = [spaced(span.text) if settings.underscores == "spaces" else span.text for span in spans]
        # verbose=False: that a text is longer than the context is not news here.
        tokens = iter(self.tokenizer(words, add_special_tokens=False, verbose=False).input_ids if words else [])
        sections = [
            [WeightedToken(token, span.weight) for span in section for token in next(tokens)] for section in prompt
        ]
        return cut(sections, self.context - 2, self.comma)

    def padded(self, chunk: Chunk) -> tuple[list[int], list[float]]:
        """Tokens and weights of a chunk with its marks, filled up to the context; padding has weight 1."""
        padding = self.context - 2 - len(chunk)
        begin, end, pad = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id, self.tokenizer.pad_token_id
        tokens = [begin, *(item.token for item in chunk), end, *[pad] * padding]
        return tokens, [1.0, *(item.weight for item in chunk), 1.0, *[1.0] * padding]
