"""Embeddings of texts on disk, so that a text encoder of gigabytes reads every text once, and not at every start."""

import hashlib
from contextlib import suppress
from pathlib import Path

from pipeline.errors import InputError
from pipeline.networks.text.conditioning import Conditioning
from pipeline.storage.digest_memory import cache_folder
from pipeline.storage.files import write_atomically
from pipeline.storage.tensor_file import encode_tensors, read_tensors


class EmbeddingCache:
    """Embeddings below this user's cache (`~/.cache/guidedrift/embeddings`), one file per text.

    `key` is a digest of everything else that determines them: encoders, settings, precision, code and machine. A file
    that is damaged counts as missing, and where nothing can be written nothing is kept.
    """

    def __init__(self, key: str):
        folder = cache_folder()
        self._folder = None if folder is None else folder / "embeddings" / key

    def get(self, text: str, number: int) -> Conditioning | None:
        """The embeddings of one text in `number` chunks, on the CPU; None where they are not there."""
        if self._folder is None or not (path := self._path(self._folder, text, number)).is_file():
            return None
        try:
            return Conditioning(read_tensors(path)[0])
        except InputError:
            return None

    def put(self, text: str, number: int, encoded: Conditioning) -> None:
        """Keep the embeddings of one text."""
        if self._folder is not None:
            content = encode_tensors({name: tensor.cpu().contiguous() for name, tensor in encoded.items()}, {})
            with suppress(OSError):
                write_atomically(self._path(self._folder, text, number), content)

    @staticmethod
    def _path(folder: Path, text: str, number: int) -> Path:
        return folder / f"{hashlib.sha256(f'{number} {text}'.encode()).hexdigest()[:32]}.safetensors"
