"""A folder of someone's own images as it is found: which files count, their captions, and their pixels."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image as PillowImage

from pipeline.errors import InputError, printable
from pipeline.storage.file_names import check_names, looks_like, printable_name, said_missing
from pipeline.storage.images import decode_photograph

SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".webp")
# Of images that are not read, and would be missing from the set without a word.
_OTHER_SUFFIXES = (
    *(".avif", ".bmp", ".dng", ".gif", ".heic", ".heif", ".jp2", ".jpe", ".jxl", ".ppm", ".psd", ".tga", ".tif"),
    ".tiff",
)
# Folders of thumbnails and notes that Synology's and Apple's programs make.
_OTHER_PROGRAMS = ("@eaDir", "__MACOSX")


@dataclass(frozen=True)
class SourceImage:
    """An image as it was found: the file's name, its bytes, and the caption beside it (empty without one)."""

    name: str
    content: bytes
    caption: str


def image_files(folder: Path, key: str, instead: str = "") -> list[Path]:
    """The image files below a folder, in the order of their names; hidden ones are other programs' notes.

    `key` is the setting that names the folder, and `instead` what else it could say. Raises InputError where the folder
    is missing, a link, or holds images in formats that are not read.
    """
    check_folder(folder, key, instead)
    if others := _files(folder, _OTHER_SUFFIXES):
        more = f" (and {len(others) - 1} more)" if len(others) > 1 else ""
        raise InputError(
            f"{key} {folder}: {printable_name(others[0].relative_to(folder))}{more} is in a format that is "
            f"not read ({', '.join(SUFFIXES)} are); save it as PNG or take it out"
        )
    return _files(folder, SUFFIXES)


def check_folder(folder: Path, key: str, instead: str = "") -> None:
    """Raise InputError where a folder that the setting `key` names cannot be watched."""
    if not folder.is_dir():
        raise InputError(
            f"{key} {folder} is not a folder{said_missing(folder)}; put images there ({', '.join(SUFFIXES)}){instead}"
        )
    if link := next((place for place in (folder, *folder.parents) if place.is_symlink()), None):
        raise InputError(
            f"{key} {folder}: {link} is a link to a folder, in which DVC sees no change; link its files "
            f"(cp -rs {link.resolve()} {link}) or copy them"
        )
    check_names(folder)


def read_files(folder: Path, files: list[Path]) -> Iterator[SourceImage]:
    """Files of a folder with their captions, one after the other. Raises InputError for what cannot be read."""
    captions = _other_captions(folder, {path.with_suffix(".txt") for path in files})
    for path in files:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputError(
                f"{printable_name(path)} cannot be read ({error.strerror}); make it readable or take it out"
            ) from None
        beside = path.with_suffix(".txt")
        caption = _caption(beside if beside.exists() else captions.get(_likeness(beside, folder), beside))
        yield SourceImage(path.relative_to(folder).as_posix(), content, caption)


def decoded(image: SourceImage, folder: Path, key: str) -> PillowImage.Image:
    """The upright sRGB pixels of an image. Raises InputError, with the file, where they cannot be read."""
    try:
        return decode_photograph(image.content)
    except OSError as error:
        reason = printable(str(error))[:200]
        raise InputError(
            f"{key} {folder}: {printable_name(image.name)} is not a readable image ({reason}); "
            "replace it or take it out"
        ) from None


def _files(source: Path, suffixes: tuple[str, ...]) -> list[Path]:
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
