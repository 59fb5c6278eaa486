"""CLIP as a text encoder: it reads a text in chunks of its context, whose words may have weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from pipeline.prompting.chunks import Chunk, WeightedToken, cut
from pipeline.prompting.embedding_names import pieces
from pipeline.prompting.emphasis import parse
from pipeline.prompting.text_settings import TextSettings
from pipeline.prompting.underscores import spaced


@dataclass(frozen=True)
class ClipTower:
    """One CLIP text transformer with its tokenizer.

    A text's pooled embedding is the projection of its end mark, where the model has one, or (`pools_end`) its last
    layer there as it is. `read`: whether the denoising network reads the embeddings of its tokens. `learned` are the
    tokens of embeddings by name, which `learning` gives.
    """

    model: CLIPTextModel | CLIPTextModelWithProjection
    tokenizer: CLIPTokenizer
    pools_end: bool = False
    read: bool = True
    learned: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def width(self) -> int:
        """The width of its tokens' vectors."""
        return int(self.model.config.hidden_size)

    def learning(self, vectors: Mapping[str, torch.Tensor]) -> "ClipTower":
        """A tower that knows embeddings as well, each some `vectors` [N, W] in place of its name, in lower case.

        They get tokens below 0. CLIP takes the largest token of a text for its end mark where a checkpoint says no
        better (https://github.com/huggingface/transformers/pull/24773), so new tokens above would take that place.
        """
        if not vectors:
            return self
        table = self.model.get_input_embeddings()
        rows = [table.weight, *(own.to(table.weight) for own in vectors.values())]
        self.model.set_input_embeddings(_Rows(torch.cat(rows)))
        learned, token = {}, -sum(len(own) for own in vectors.values())
        for name, own in vectors.items():
            learned[name] = tuple(range(token, token + len(own)))
            token += len(own)
        return replace(self, learned=learned)

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
        names = self.learned if settings.syntax == "a1111" else ()
        read = [[(piece, span.weight) for span in section for piece in pieces(span.text, names)] for section in prompt]
        words = [piece.text for section in read for piece, _ in section if not piece.is_embedding]
        if settings.underscores == "spaces":
            words = [spaced(text) for text in words]
        # verbose=False: that a text is longer than the context is not news here.
        tokens = iter(self.tokenizer(words, add_special_tokens=False, verbose=False).input_ids if words else [])
        sections = [
            [
                item
                for piece, weight in section
                for item in (self._vectors(piece.text, weight) if piece.is_embedding else _plain(next(tokens), weight))
            ]
            for section in read
        ]
        return cut(sections, self.context - 2, self.comma)

    def _vectors(self, name: str, weight: float) -> list[WeightedToken]:
        own = self.learned[name]
        return [WeightedToken(token, weight, len(own) - k) for k, token in enumerate(own)]

    def padded(self, chunk: Chunk) -> tuple[list[int], list[float]]:
        """Tokens and weights of a chunk with its marks, filled up to the context; padding has weight 1."""
        padding = self.context - 2 - len(chunk)
        begin, end, pad = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id, self.tokenizer.pad_token_id
        tokens = [begin, *(item.token for item in chunk), end, *[pad] * padding]
        return tokens, [1.0, *(item.weight for item in chunk), 1.0, *[1.0] * padding]


def _plain(tokens: list[int], weight: float) -> list[WeightedToken]:
    return [WeightedToken(token, weight) for token in tokens]


class _Rows(torch.nn.Module):
    """A table of vectors in which tokens below 0 count from the end."""

    def __init__(self, weight: torch.Tensor):
        super().__init__()
        self.weight = torch.nn.Parameter(weight, requires_grad=False)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return self.weight[input]
