"""Texts that are encoded once, however many batches and arms read them."""

from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar

import torch

from pipeline.networks.text.conditioning import Conditioning, joined
from pipeline.networks.text.text_encoder import TextEncoder
from pipeline.prompting.chunks import Chunk

Key = TypeVar("Key")
# Embeddings of 4,000 texts of SD 1.x in single precision. What does not fit is encoded again each time.
MOST_BYTES = 2**30


class EncodedTexts:
    """What a text encoder makes of texts, remembered up to `most_bytes` on the encoder's device.

    Each text is encoded alone: its embedding then does not depend on the texts that it shares a batch with, and so not
    on the order in which a worker meets them.
    """

    def __init__(self, encoder: TextEncoder, most_bytes: int = MOST_BYTES):
        self.encoder, self._room = encoder, most_bytes
        self._chunks: dict[str, list[list[Chunk]]] = {}
        self._known: dict[tuple[str, int], Conditioning] = {}

    @torch.inference_mode()
    def encode_together(
        self, groups: Mapping[Key, Sequence[str]], references: Collection[object] = ()
    ) -> dict[Key, Conditioning]:
        """Several groups of texts for one call of a network, as TextEncoder.encode_together gives them."""
        number = self.encoder.number({text: self._cut(text) for texts in groups.values() for text in texts}.values())
        return {
            key: self.encoder.zeroed(joined([self._encoded(text, number) for text in texts]), texts, key in references)
            for key, texts in groups.items()
        }

    def content(self, texts: Sequence[str], length: int, marks: bool = False) -> torch.Tensor:
        """True [B, `length`] where an embedding is of a word of its text, or maybe of its marks, and not of padding."""
        context = self.encoder.towers[0].context
        content = torch.zeros(len(texts), length, dtype=torch.bool)
        for row, text in zip(content, texts, strict=True):
            for k, chunk in enumerate(self._cut(text)[0]):
                row[k * context + (not marks) : k * context + 1 + len(chunk) + marks] = True
        return content

    def _cut(self, text: str) -> list[list[Chunk]]:
        if text not in self._chunks:
            self._chunks[text] = self.encoder.cut(text)
        return self._chunks[text]

    def _encoded(self, text: str, number: int) -> Conditioning:
        known = self._known.get((text, number))
        if known is not None:
            return known
        encoded = self.encoder.embed([self._cut(text)], number)
        size = sum(tensor.nbytes for tensor in encoded.values())
        if size <= self._room:
            self._room -= size
            self._known[text, number] = encoded
        return encoded
