"""What every feature extractor offers, and how the images of a set run through it."""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor

from pipeline.errors import InputError

BATCH = 128
# Batches that are under way or wait to be asked for.
_AHEAD = 3


class Extractor(Protocol):
    """A fixed map from images to vectors.

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
        """One RGB image as the network wants it, [C, H, W], on the CPU; called from several threads."""
        ...

    def embed(self, pixels: Tensor) -> Tensor:
        """Vectors [B, D] of prepared images [B, C, H, W] on `device`."""
        ...


def embed_images(extractor: Extractor, images: Iterable[Image.Image], batch: int = BATCH) -> Tensor:
    """Vectors [N, D] float32 of images, on the CPU.

    Decoding, resizing and the forward pass overlap. While a GPU works on a batch, threads prepare the next ones. On
    the CPU two batches are under way, each on half of the threads: a forward pass on all of them would wait, operation
    by operation, for the core that decodes. Pillow opens a file lazily, so images that are only opened are decoded
    in the threads, too. Raises ValueError without images.
    """
    on_gpu = extractor.device.type == "cuda"

    def prepared(chunk: Sequence[Image.Image]) -> Tensor:
        rgb = (image if image.mode == "RGB" else image.convert("RGB") for image in chunk)
        pixels = torch.stack([extractor.prepare(image) for image in rgb])
        return pixels.pin_memory() if on_gpu else pixels

    @torch.inference_mode()
    def embedded(pixels: Tensor) -> Tensor:
        return extractor.embed(pixels.to(extractor.device, non_blocking=True)).float().cpu()

    chunks = _chunks(images, batch)
    threads = torch.get_num_threads()
    try:
        if on_gpu:
            with ThreadPoolExecutor(max(1, os.cpu_count() or 1)) as pool:
                parts = [embedded(pixels) for pixels in _in_order(pool, prepared, chunks)]
        else:
            # A thread's own setting, but for the BLAS library's, which is put back below.
            with ThreadPoolExecutor(2, "", torch.set_num_threads, (max(1, threads // 2),)) as pool:
                parts = list(_in_order(pool, lambda chunk: embedded(prepared(chunk)), chunks))
    finally:
        torch.set_num_threads(threads)
    if not parts:
        raise ValueError("features need at least 1 image, found 0")
    return torch.cat(parts)


def _chunks(images: Iterable[Image.Image], size: int) -> Iterator[list[Image.Image]]:
    remaining = iter(images)
    while chunk := list(islice(remaining, size)):
        yield chunk


def _in_order(
    pool: ThreadPoolExecutor,
    function: Callable[[Sequence[Image.Image]], Tensor],
    chunks: Iterator[Sequence[Image.Image]],
) -> Iterator[Tensor]:
    """What `function` makes of each chunk, a few chunks ahead of the one that is asked for."""
    waiting: deque[Future[Tensor]] = deque()
    while True:
        waiting.extend(pool.submit(function, chunk) for chunk in islice(chunks, _AHEAD - len(waiting)))
        if not waiting:
            return
        yield waiting.popleft().result()


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
