"""Which word of a list an image shows, by CLIP's zero-shot classification (Radford et al., 2103.00020, section 3.1)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from eval.features.clip import Clip
from eval.scorers.tags import tags_of

# Captions that name exactly one word of a list, from which on its chances are calibrated.
FEWEST = 100
# The scales that are tried for cosines. CLIP's training ends at 100.
_LOWEST, _HIGHEST = 0.1, 1000.0


@dataclass(frozen=True)
class WordReader:
    """The chances that an image shows each of the `tags`, of which it is taken to show one.

    They are the softmax of cosines times `scale`, which is CLIP's own or, with `calibrated_on` captions, fitted.
    """

    tags: list[str]
    scale: float
    calibrated_on: int
    _texts: Tensor

    def __call__(self, vectors: Tensor) -> Tensor:
        """The chances [N, T] float64 of images with the CLIP's vectors [N, D]; rows sum to 1."""
        return (self.scale * _cosines(vectors, self._texts)).softmax(1)


def word_reader(words: Sequence[str], clip: Clip) -> WordReader:
    """A reader of words with the scale of the CLIP's training, by which chances may be far too sure."""
    return WordReader(list(words), clip.logit_scale, 0, clip.embed_texts(list(words)))


def named_once(words: Sequence[str], captions: Sequence[str]) -> dict[int, int]:
    """Which captions have exactly one of the words among their tags, and which it is, both by their numbers."""
    places = {word: k for k, word in enumerate(words)}
    found = {}
    for row, caption in enumerate(captions):
        named = {places[tag] for tag in tags_of(caption) if tag in places}
        if len(named) == 1:
            found[row] = named.pop()
    return found


def calibrated(reader: WordReader, vectors: Tensor, captions: Sequence[str]) -> WordReader:
    """A reader whose scale fits images with known captions: temperature scaling (Guo et al., 1706.04599).

    `vectors` [M, D] are of the images of the captions. Which word is likeliest does not change. With fewer than FEWEST
    captions that name one word the reader stays as it is.
    """
    known = named_once(reader.tags, captions)
    if len(known) < FEWEST:
        return reader
    cosines = _cosines(vectors[list(known)], reader._texts)
    right = torch.tensor(list(known.values()))

    def loss(logarithm: float) -> float:
        return float(cross_entropy(10**logarithm * cosines, right))

    bounds = [float(torch.tensor(bound).log10()) for bound in (_LOWEST, _HIGHEST)]
    found = minimize_scalar(loss, bounds=bounds, method="bounded")
    return WordReader(reader.tags, float(10**found.x), len(known), reader._texts)


def _cosines(vectors: Tensor, texts: Tensor) -> Tensor:
    return normalize(vectors.double(), dim=1) @ normalize(texts.double(), dim=1).T
