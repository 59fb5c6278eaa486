"""What every feature extractor offers, and how the pictures of a set run through it."""

import hashlib
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor

from pipeline.errors import InputError

BATCH = 128
# Batches that are being prepared or wait for the network.
_AHEAD = 3


class Extractor(Protocol):
    """A fixed map from pictures to vectors.

    `digest` names its weights, `resize` its resize and normalisation and `precision` its arithmetic. Vectors of
    extractors that differ in any of them are not to be compared (Parmar et al. 2104.11222: resizing alone moves FID).
    """

    device: torch.device

    @property
    def digest(self) -> str: ...

    @property
    def resize(self) -> str: ...

    @property
    def precision(self) -> str: ...

    def prepare(self, image: Image.Image) -> Tensor:
        """One RGB picture as the network wants it, [C, H, W], on the CPU; called from several threads."""
        ...

    def embed(self, pixels: Tensor) -> Tensor:
        """Vectors [B, D] of prepared pictures [B, C, H, W] on `device`."""
        ...


def embed_images(extractor: Extractor, images: Iterable[Image.Image], batch: int = BATCH) -> Tensor:
    """Vectors [N, D] float32 of pictures, on the CPU.

    Decoding, resizing and the forward pass overlap: threads prepare the next batches while the network works on this
    one. Pillow opens a file lazily, so pictures that are only opened are decoded in the threads, too.
    """
    with ThreadPoolExecutor(max(1, os.cpu_count() or 1)) as pool, torch.inference_mode():
        parts = [extractor.embed(pixels).float().cpu() for pixels in _batches(extractor, images, batch, pool)]
    if not parts:
        raise ValueError("features need at least 1 picture, found 0")
    return torch.cat(parts)


def _batches(
    extractor: Extractor, images: Iterable[Image.Image], batch: int, pool: ThreadPoolExecutor
) -> Iterator[Tensor]:
    remaining = iter(images)
    waiting: deque[Future[Tensor]] = deque()

    def prepared(chunk: Sequence[Image.Image]) -> Tensor:
        rgb = (image if image.mode == "RGB" else image.convert("RGB") for image in chunk)
        pixels = torch.stack([extractor.prepare(image) for image in rgb])
        return pixels.pin_memory() if extractor.device.type == "cuda" else pixels

    while True:
        while len(waiting) < _AHEAD and (chunk := list(islice(remaining, batch))):
            waiting.append(pool.submit(prepared, chunk))
        if not waiting:
            return
        yield waiting.popleft().result().to(extractor.device, non_blocking=True)


def forward_precision(device: torch.device) -> torch.dtype:
    """Half precision on a GPU, single precision elsewhere."""
    return torch.float16 if device.type == "cuda" else torch.float32


def weights_digest(paths: Sequence[Path], fetch: str) -> str:
    """Hex digest (16 characters) of an extractor's files.

    `fetch` is the command that gets them. Raises InputError where one is missing.
    """
    digest = hashlib.sha256()
    for path in paths:
        if not path.is_file():
            raise InputError(f"{path} is missing; get it with `{fetch}`")
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]
