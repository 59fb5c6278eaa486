"""A folder of someone's own images becomes an image set, to compare a study of real checkpoints with."""

import hashlib
import os
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from datasets import Features, Image, Value
from PIL import Image as PillowImage
from tqdm import tqdm

from pipeline.errors import InputError, printable
from pipeline.storage.file_names import check_names, looks_like, printable_name, said_missing
from pipeline.storage.files import fingerprint
from pipeline.storage.images import decode_photograph
from pipeline.storage.shards import SHARD_BYTES, encode_png, read_table, shard_fingerprint, write_shard

SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".webp")
# Of images that are not read, and would be missing from the set without a word.
_OTHER_SUFFIXES = (
    *(".avif", ".bmp", ".dng", ".gif", ".heic", ".heif", ".jp2", ".jpe", ".jxl", ".ppm", ".psd", ".tga", ".tif"),
    ".tiff",
)
SHARD_IMAGES = 256
# Folders of thumbnails and notes that Synology's and Apple's programs make.
_OTHER_PROGRAMS = ("@eaDir", "__MACOSX")
FEATURES = Features({"image_id": Value("string"), "image": Image(), "prompt": Value("string"), "file": Value("string")})
# Raise it when the same file becomes another row than before.
_VERSION = 3


@dataclass(frozen=True)
class SourceImage:
    """An image as it was found: the file's name, its bytes, and the caption beside it (empty without one)."""

    name: str
    content: bytes
    caption: str


def copy_images(source: Path, folder: Path, images: int, seed: int) -> list[Path]:
    """Copy images of `source` as PNG into `folder`/part-*.parquet; finished shards are kept, others deleted.

    `source` holds image files, each with its caption in a .txt file of the same name where it has one, or shards of
    this project. Of more files than `images` the seed chooses, and their order is by chance; of shards the first are
    taken, as image-to-image does. Raises InputError where there are too few, and names what cannot be read or has
    another size than the first: extractors that do not resize compare images of one canvas.
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
    canvas = _decoded(first, source).size
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
                encoded = list(pool.map(lambda one: _png(one, canvas, source), chunk))
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
    if not source.is_dir():
        raise InputError(
            f"reference.source {source} is not a folder{said_missing(source)}; put images there "
            f"({', '.join(SUFFIXES)}), or take reference.source=tinybooru"
        )
    if link := next((place for place in (source, *source.parents) if place.is_symlink()), None):
        raise InputError(
            f"reference.source {source}: {link} is a link to a folder, in which DVC sees no change; link its files "
            f"(cp -rs {link.resolve()} {link}) or copy them"
        )
    check_names(source)
    if shards := _shards(source):
        return sum(len(read_table(path, ["image"])) for path in shards)
    if others := _files(source, _OTHER_SUFFIXES):
        more = f" (and {len(others) - 1} more)" if len(others) > 1 else ""
        raise InputError(
            f"reference.source {source}: {printable_name(others[0].relative_to(source))}{more} is in a format that is "
            f"not read ({', '.join(SUFFIXES)} are); save it as PNG or take it out"
        )
    return len(_files(source))


def _images(source: Path, images: int, seed: int) -> Iterator[SourceImage]:
    for path in _shards(source):
        for row in read_table(path, ["image_id", "image", "prompt"]).to_pylist():
            name = f"{path.name}: {row['image_id']}"
            yield SourceImage(name, (row["image"] or {}).get("bytes") or b"", row["prompt"] or "")
    if _shards(source):
        return
    files = _files(source)
    captions = _other_captions(source, {path.with_suffix(".txt") for path in files})
    # Sorted by name, images of one subject stand together, and halves of the reference set would differ.
    for path in random.Random(seed).sample(files, images):  # noqa: S311 (to be repeated)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputError(
                f"{printable_name(path)} cannot be read ({error.strerror}); make it readable or take it out"
            ) from None
        beside = path.with_suffix(".txt")
        caption = _caption(beside if beside.exists() else captions.get(_likeness(beside, source), beside))
        yield SourceImage(path.relative_to(source).as_posix(), content, caption)


def _shards(source: Path) -> list[Path]:
    return sorted(source.glob("part-*.parquet"))


def _files(source: Path, suffixes: tuple[str, ...] = SUFFIXES) -> list[Path]:
    """The image files below a folder, in order; hidden ones are other programs' notes."""
    names = (path.relative_to(source) for path in source.rglob("*") if path.suffix.lower() in suffixes)
    return [source / name for name in sorted(names) if not _is_of_other_programs(name) and not (source / name).is_dir()]


def _is_of_other_programs(name: Path) -> bool:
    return any(part.startswith(".") or part in _OTHER_PROGRAMS for part in name.parts)


def _other_captions(source: Path, own: set[Path]) -> dict[str, Path]:
    """Caption files that are not the `own` file of an image, by what their names look like.

    After a copy from Windows or macOS they can differ from the image's in capitals, or in how an accent is written.
    """
    texts = sorted(path for path in source.rglob("*") if path.suffix.lower() == ".txt" and path not in own)
    return {_likeness(path, source): path for path in texts}


def _likeness(path: Path, source: Path) -> str:
    return looks_like(path.relative_to(source).as_posix())


def _caption(path: Path) -> str:
    try:
        return " ".join(path.read_text("utf-8-sig").split())
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        # Of an OSError the name stands in front already.
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{printable_name(path)} is not a readable UTF-8 text ({reason}); save it as such") from None


def _decoded(image: SourceImage, source: Path) -> PillowImage.Image:
    try:
        return decode_photograph(image.content)
    except OSError as error:
        reason = printable(str(error))[:200]
        raise InputError(
            f"reference.source {source}: {printable_name(image.name)} is not a readable image ({reason}); "
            "replace it or take it out"
        ) from None


def _png(found: SourceImage, canvas: tuple[int, int], source: Path) -> bytes:
    image = _decoded(found, source)
    if image.size != canvas:
        (width, height), (first_width, first_height) = image.size, canvas
        raise InputError(
            f"reference.source {source}: {printable_name(found.name)} has {width}x{height} pixels, the first image "
            f"{first_width}x{first_height}; crop and resize all to one canvas, that of the arms where you can"
        )
    return encode_png(image)
