"""Vectors of a few tokens that can be learned: a text encoder that reads them, and its gradients.

The rest of the text encoder stays as it is, and so does the denoising network: what is learned is a text (arXiv
2208.01618).
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F

from pipeline.errors import InputError
from pipeline.networks.text.clip_tower import ClipTower
from pipeline.networks.text.conditioning import Conditioning
from pipeline.networks.text.text_encoder import TextEncoder
from pipeline.networks.weights.embedding_file import tensor_names

# How the text that is learned is called, in these text encoders alone.
_NAME = "learned"


class LearnedVectors(torch.nn.Module):
    """The vectors [N, W] of one text for each CLIP of an encoder, which learns to read them under a name.

    `encoder` reads all other texts as before.
    """

    def __init__(self, encoder: TextEncoder, start: Sequence[torch.Tensor]):
        super().__init__()
        towers = [tower for tower in encoder.towers if isinstance(tower, ClipTower)]
        self.vectors = torch.nn.ParameterList(torch.nn.Parameter(own.detach().float().clone()) for own in start)
        learning = []
        for tower, own in zip(towers, self.vectors, strict=True):
            table = tower.model.get_input_embeddings()
            tower.model.set_input_embeddings(_LearnedRows(table.weight.detach(), own))
            learning.append(replace(tower, learned={_NAME: tuple(range(-len(own), 0))}))
        self.encoder = replace(encoder, towers=tuple(learning))
        # The text has no weights, so no mean is to be restored; the gradient of that would divide by the mean of what
        # leaves a layer norm, which can be zero.
        unweighted = encoder.settings.model_copy(update={"restore_mean": False})
        self._unweighted = replace(self.encoder, settings=unweighted)
        self._cut = self.encoder.cut(_NAME)

    def told(self, chunks: int = 1) -> Conditioning:
        """What a network is told of the text, with its gradients: tokens [1, L, W], and what the family reads besides.

        It is padded to `chunks`, the number of chunks that the prompts in its batch have.
        """
        return self._unweighted.embed([self._cut], max(chunks, self.encoder.number([self._cut])))

    def tensors(self) -> dict[str, torch.Tensor]:
        """The vectors by their names in a file."""
        names = tensor_names(len(self.vectors))
        return {name: own.detach().cpu().contiguous() for name, own in zip(names, self.vectors, strict=True)}


class _LearnedRows(torch.nn.Module):
    """A table of vectors in which tokens below 0 count from the end of those that are learned."""

    weight: torch.Tensor

    def __init__(self, table: torch.Tensor, learned: torch.nn.Parameter):
        super().__init__()
        self.register_buffer("weight", table, persistent=False)
        self.learned = learned

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        known = F.embedding(tokens.clamp(min=0), self.weight)
        own = self.learned[tokens.clamp(max=-1)].to(known)
        return torch.where((tokens < 0)[..., None], own, known)


def starting_vectors(encoder: TextEncoder, words: str, tokens: int) -> list[torch.Tensor]:
    """The first `tokens` vectors of some words for each CLIP of an encoder, [tokens, W], repeated where they are fewer.

    Raises InputError for `tokens` below 1 or above what a chunk holds, and for words without tokens.
    """
    towers = [tower for tower in encoder.towers if isinstance(tower, ClipTower)]
    most = min(tower.context for tower in towers) - 2
    if not 1 <= tokens <= most:
        raise InputError(f"tokens is {tokens}; an embedding for these text encoders has 1 to {most}")
    found = []
    for tower in towers:
        read = [item.token for chunk in tower.chunks(words, encoder.settings) for item in chunk]
        if not read:
            raise InputError(f"words is '{words[:60]}', which has no tokens to start from; name some words")
        chosen = torch.tensor([read[k % len(read)] for k in range(tokens)])
        found.append(tower.model.get_input_embeddings().weight[chosen.to(tower.model.device)].detach().float())
    return found
