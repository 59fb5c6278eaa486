"""The images of an external arm's folder: what they are called, what is in them, and what they say of themselves."""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from pipeline.errors import InputError, printable
from pipeline.external.metadata.reader import Found, read_metadata
from pipeline.reference.canvas import fitted, middle
from pipeline.reference.source_folder import SourceImage, decoded, image_files, read_files
from pipeline.storage.file_names import printable_name
from pipeline.storage.images import DAMAGED, open_image
from pipeline.study.from_folder import FromFolder

FORMATS = ("PNG", "JPEG", "WEBP")
_ORIENTATION = 0x0112
_COLOURS = {"L": "grey", "LA": "grey", "1": "black and white", "P": "a palette", "PA": "a palette", "CMYK": "CMYK"}
# What is read at once before it is looked at.
_AT_ONCE = 32


@dataclass(frozen=True)
class ExternalImage:
    """An image of the folder: its name below it, the SHA-256 of its bytes, its caption file's text, its metadata."""

    file: str
    digest: str
    caption: str
    found: Found

    @property
    def prompt(self) -> str:
        """What it was generated from, by its metadata or else by its caption; empty where neither says."""
        return (self.found.metadata.prompt if self.found.metadata else "") or self.caption

    @property
    def negative(self) -> str:
        return self.found.metadata.negative if self.found.metadata else ""

    @property
    def seed(self) -> int | None:
        return self.found.metadata.seed if self.found.metadata else None


def key_of(arm_name: str) -> str:
    """The setting that names an arm's folder, for errors."""
    return f"arms.{arm_name}.from_folder"


def check_external(arm_name: str, settings: FromFolder, images: int) -> None:
    """Raise InputError where a folder has fewer than `images` images, or one whose header cannot be read."""
    folder, key = Path(settings.folder), key_of(arm_name)
    files = image_files(folder, key)
    if len(files) < images:
        raise InputError(
            f"{key} {folder} holds {len(files)} images, generate.images is {images}; add images, or lower "
            f"generate.images, which is at least 10"
        )
    check_readable(folder, key)


def check_readable(folder: Path, key: str) -> None:
    """Raise InputError where the header of an image cannot be read; `key` is the setting that names the folder.

    Headers alone are read, so that this comes before any work.
    """
    for path in image_files(folder, key):
        try:
            with path.open("rb") as file, Image.open(file, formats=FORMATS):
                pass
        except (OSError, *DAMAGED, Image.DecompressionBombError) as error:
            raise InputError(
                f"{key} {folder}: {printable_name(path.relative_to(folder))} is not a readable image "
                f"({printable(str(error))[:200]}); replace it or take it out"
            ) from None


def folder_digest(settings: FromFolder) -> str:
    """A digest of the names and bytes of a folder's files, captions and scores among them."""
    digest = hashlib.sha256()
    folder = Path(settings.folder)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{_sha256(path)}\n".encode())
    if settings.scores is not None:
        digest.update(_sha256(Path(settings.scores)).encode())
    return digest.hexdigest()[:16]


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(
            f"{printable_name(path)} cannot be read ({error.strerror}); make it readable or take it out"
        ) from None


def folder_images(arm_name: str, settings: FromFolder) -> list[ExternalImage]:
    """The images of an arm's folder, in the order of their names. Raises InputError, with the file, for damage."""
    folder, key = Path(settings.folder), key_of(arm_name)
    # Pillow leaves Python while it decodes.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(_in_turn(pool, read_files(folder, image_files(folder, key)), folder, key))


def _in_turn(
    pool: ThreadPoolExecutor, sources: Iterator[SourceImage], folder: Path, key: str
) -> Iterator[ExternalImage]:
    waiting: list[SourceImage] = []

    def looked_at(source: SourceImage) -> ExternalImage:
        return _looked_at(source, folder, key)

    for source in sources:
        waiting.append(source)
        if len(waiting) == _AT_ONCE:
            yield from pool.map(looked_at, waiting)
            waiting = []
    yield from pool.map(looked_at, waiting)


def _looked_at(source: SourceImage, folder: Path, key: str) -> ExternalImage:
    try:
        found = read_metadata(open_image(source.content, FORMATS))
    except (OSError, *DAMAGED) as error:
        raise InputError(
            f"{key} {folder}: {printable_name(source.name)} is not a readable image "
            f"({printable(str(error))[:200]}); replace it or take it out"
        ) from None
    return ExternalImage(source.name, hashlib.sha256(source.content).hexdigest(), source.caption, found)


@dataclass(frozen=True)
class Reading:
    """An image on the study's canvas; its own `size` as `1024x768`, and what was `done` to it, in words."""

    image: Image.Image
    size: str
    done: tuple[str, ...]


def on_canvas(source: SourceImage, canvas: tuple[int, int], folder: Path, key: str) -> Reading:
    """An image in sRGB on a canvas (width, height), by the rules of reference folders. Raises InputError."""
    upright = decoded(source, folder, key)
    done = _done(open_image(source.content, FORMATS))
    whole = (0.0, 0.0, float(upright.width), float(upright.height))
    if middle(upright.size, canvas) != whole:
        done.append("cropped to the shape of the canvas")
    if upright.size != canvas:
        left, top, right, bottom = middle(upright.size, canvas)
        done.append("shrunk" if (right - left) * (bottom - top) > canvas[0] * canvas[1] else "enlarged")
    return Reading(fitted(upright, canvas), f"{upright.width}x{upright.height}", tuple(done))


def _done(image: Image.Image) -> list[str]:
    """What the reading of an image does to its pixels beside their number, by its header."""
    done = []
    try:
        if image.getexif().get(_ORIENTATION, 1) in range(2, 9):
            done.append("turned upright")
    except (OSError, *DAMAGED):
        pass  # an EXIF that no viewer can read turns nothing
    if image.mode in _COLOURS:
        done.append(f"from {_COLOURS[image.mode]} to RGB")
    if image.mode.startswith("I;16"):
        done.append("from 16 to 8 bits")
    if image.has_transparency_data:
        done.append("laid on white")
    if image.info.get("icc_profile"):
        done.append("colour profile applied")
    return done
