"""Texts that are encoded once, however many batches and arms read them."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeVar

import torch

from pipeline.networks.text.conditioning import Conditioning, joined
from pipeline.networks.text.embedding_cache import EmbeddingCache
from pipeline.networks.text.text_encoder import TextEncoder
from pipeline.prompting.chunks import Chunk

Key = TypeVar("Key")
# Embeddings of 4,000 texts of SD 1.x in single precision. What does not fit is encoded again each time, or read again.
MOST_BYTES = 2**30


class EncodedTexts:
    """What a text encoder makes of texts, remembered up to `most_bytes` on the encoder's device.

    Each text is encoded alone: its embedding then does not depend on the texts that it shares a batch with, and so not
    on the order in which a worker meets them. Where `load` is given, `encoder` has no weights and cuts texts alone; the
    one that `load` gives encodes them, is loaded at the first text that `cache` does not know, and dropped by `drop`.
    Embeddings are on `device` then.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        most_bytes: int = MOST_BYTES,
        load: Callable[[], TextEncoder] | None = None,
        cache: EmbeddingCache | None = None,
        device: torch.device | None = None,
    ):
        self.encoder, self._room = encoder, most_bytes
        self._load, self._cache, self._device = load, cache, device
        self._loaded = encoder if load is None else None
        self._chunks: dict[str, list[list[Chunk]]] = {}
        self._known: dict[tuple[str, int], Conditioning] = {}
        self._ready: set[tuple[str, int]] = set()

    @torch.inference_mode()
    def encode_together(
        self, groups: Mapping[Key, Sequence[str]], references: Collection[object] = ()
    ) -> dict[Key, Conditioning]:
        """Several groups of texts for one call of a network, as TextEncoder.encode_together gives them."""
        told = self.encoder.addressed(groups, references)
        number = self._number(told)
        return {
            key: self.encoder.zeroed(
                joined([self._encoded(text, number) for text in told[key]]), texts, key in references
            )
            for key, texts in groups.items()
        }

    @torch.inference_mode()
    def encode_first(self, groups: Mapping[Key, Sequence[str]], references: Collection[object] = ()) -> None:
        """Have the cache hold the embeddings that `encode_together` will ask for."""
        told = self.encoder.addressed(groups, references)
        number = self._number(told)
        for text in dict.fromkeys(text for texts in told.values() for text in texts):
            if (text, number) not in self._ready:
                self._encoded(text, number)
                self._ready.add((text, number))

    def drop(self) -> None:
        """Give up the encoder that was loaded; it is loaded again at a text that is not known."""
        if self._load is not None and self._loaded is not None:
            self._loaded = None
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def content(self, texts: Sequence[str], length: int, marks: bool = False) -> torch.Tensor:
        """True [B, `length`] where an embedding is of a word of its text, or maybe of its marks, and not of padding."""
        return torch.stack([self.encoder.content(self._cut(text), length, marks) for text in texts])

    def _number(self, groups: Mapping[Key, Sequence[str]]) -> int:
        return self.encoder.number({text: self._cut(text) for texts in groups.values() for text in texts}.values())

    def _cut(self, text: str) -> list[list[Chunk]]:
        if text not in self._chunks:
            self._chunks[text] = self.encoder.cut(text)
        return self._chunks[text]

    def _encoded(self, text: str, number: int) -> Conditioning:
        known = self._known.get((text, number))
        if known is not None:
            return known
        encoded = None if self._cache is None else self._cache.get(text, number)
        if encoded is None:
            if self._loaded is None:
                assert self._load is not None
                self._loaded = self._load()
            encoded = self._loaded.embed([self._cut(text)], number)
            if self._cache is not None:
                self._cache.put(text, number, encoded)
        if self._device is not None:
            encoded = Conditioning({name: tensor.to(self._device) for name, tensor in encoded.items()})
        size = sum(tensor.nbytes for tensor in encoded.values())
        if size <= self._room:
            self._room -= size
            self._known[text, number] = encoded
        return encoded
