"""A folder of someone's own images becomes an image set, to compare a study of real checkpoints with."""

import hashlib
import os
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from pathlib import Path
from typing import Any

from datasets import Features, Image, Value
from tqdm import tqdm

from pipeline.errors import InputError
from pipeline.reference.canvas import fitted
from pipeline.reference.source_folder import SUFFIXES, SourceImage, check_folder, decoded, image_files, read_files
from pipeline.storage.file_names import printable_name
from pipeline.storage.files import fingerprint
from pipeline.storage.shards import SHARD_BYTES, encode_png, read_table, shard_fingerprint, write_shard

SHARD_IMAGES = 256
FEATURES = Features({"image_id": Value("string"), "image": Image(), "prompt": Value("string"), "file": Value("string")})
# Raise it when the same file becomes another row than before.
_VERSION = 3
_KEY = "reference.source"
_INSTEAD = ", or take reference.source=tinybooru"


def copy_images(
    source: Path, folder: Path, images: int, seed: int, canvas: tuple[int, int] | None = None
) -> list[Path]:
    """Copy images of `source` as PNG into `folder`/part-*.parquet; finished shards are kept, others deleted.

    `source` holds image files, each with its caption in a .txt file of the same name where it has one, or shards of
    this project. Of more files than `images` the seed chooses, and their order is by chance; of shards the first are
    taken, as image-to-image does. All are brought to `canvas` (width, height) where one is given. Raises InputError
    where there are too few, and names what cannot be read or, without a canvas, has another size than the first:
    extractors that do not resize compare images of one canvas.
    """
    count = _count(source)
    if count < images:
        raise InputError(
            f"reference.source {source} holds {count} images ({', '.join(SUFFIXES)}, or shards part-*.parquet), "
            f"reference.images is {images}; add images, or lower reference.images to at least twice "
            "generate.images"
        )
    rest = islice(_images(source, images, seed), images)
    first = next(rest)
    fit = canvas is not None
    canvas = canvas or decoded(first, source, _KEY).size
    found = chain([first], rest)
    each = shard_images(canvas)
    paths = [folder / f"part-{part:05d}.parquet" for part in range(-(-images // each))]
    for stale in set(folder.glob("part-*.parquet")) - set(paths):
        stale.unlink()
    # Pillow leaves Python while it decodes and encodes.
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(total=images, desc="reference", unit="image", disable=None) as bar,
    ):
        for part, path in enumerate(paths):
            chunk = list(islice(found, each))
            rows = [[one.name, hashlib.sha256(one.content).hexdigest(), one.caption] for one in chunk]
            mark = fingerprint(["images", _VERSION, each, part, canvas, rows])
            if shard_fingerprint(path) != mark:
                encoded = list(pool.map(lambda one: _png(one, canvas, source, fit), chunk))
                columns: dict[str, list[Any]] = {
                    "image_id": [f"reference-{part * each + k:06d}" for k in range(len(chunk))],
                    "image": [{"bytes": png, "path": None} for png in encoded],
                    "prompt": [one.caption for one in chunk],
                    "file": [one.name for one in chunk],
                }
                write_shard(path, columns, FEATURES, mark)
            bar.update(len(chunk))
    return paths


def shard_images(canvas: tuple[int, int]) -> int:
    """How many images of a canvas (width, height) are in a shard, which has at most SHARD_BYTES of pixels."""
    width, height = canvas
    return max(1, min(SHARD_IMAGES, SHARD_BYTES // (3 * width * height)))


def _count(source: Path) -> int:
    check_folder(source, _KEY, _INSTEAD)
    if shards := _shards(source):
        return sum(len(read_table(path, ["image"])) for path in shards)
    return len(image_files(source, _KEY, _INSTEAD))


def _images(source: Path, images: int, seed: int) -> Iterator[SourceImage]:
    for path in _shards(source):
        for row in read_table(path, ["image_id", "image", "prompt"]).to_pylist():
            name = f"{path.name}: {row['image_id']}"
            yield SourceImage(name, (row["image"] or {}).get("bytes") or b"", row["prompt"] or "")
    if _shards(source):
        return
    files = image_files(source, _KEY, _INSTEAD)
    # Sorted by name, images of one subject stand together, and halves of the reference set would differ.
    yield from read_files(source, random.Random(seed).sample(files, images))  # noqa: S311 (to be repeated)


def _shards(source: Path) -> list[Path]:
    return sorted(source.glob("part-*.parquet"))


def _png(found: SourceImage, canvas: tuple[int, int], source: Path, fit: bool) -> bytes:
    image = decoded(found, source, _KEY)
    if fit:
        image = fitted(image, canvas)
    if image.size != canvas:
        (width, height), (first_width, first_height) = image.size, canvas
        raise InputError(
            f"reference.source {source}: {printable_name(found.name)} has {width}x{height} pixels, the first image "
            f"{first_width}x{first_height}; crop and resize all to one canvas, that of the arms where you can, or have "
            "it done here to that of reference.canvas"
        )
    return encode_png(image)
