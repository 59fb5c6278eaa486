"""The images that someone asks about: one file, a folder of files, or an image set of the study."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from pipeline.errors import InputError, printable
from pipeline.external.folder_images import FORMATS, check_readable
from pipeline.external.metadata.reader import read_metadata
from pipeline.layout import REFERENCE_SET, SETS
from pipeline.reference.source_folder import SUFFIXES, SourceImage, decoded, image_files, read_files
from pipeline.settings import nearest
from pipeline.storage.file_names import printable_name, said_missing
from pipeline.storage.images import DAMAGED, decode_image, open_image
from pipeline.storage.shards import read_table, shard_paths
from pipeline.study.study import TINYBOORU, Study

KEY = "IMAGES"
_REFERENCE = "reference"


@dataclass(frozen=True)
class AskedImage:
    """An image's name, the caption beside it, the prompt in its metadata, and the file in which a caption belongs.

    Texts are empty where there are none, and an image of a set has no such file.
    """

    name: str
    caption: str = ""
    prompt: str = ""
    caption_file: Path | None = None


@dataclass(frozen=True)
class AskedImages:
    """The files of a folder; without files, the image set in it."""

    folder: Path
    files: tuple[Path, ...] = ()

    def opened(self) -> Iterator[tuple[AskedImage, Image.Image]]:
        """Each image with its RGB pixels. Raises InputError, with the image, for what cannot be read."""
        if not self.files:
            yield from self._of_set()
            return
        sources = self._alone() if len(self.files) == 1 else read_files(self.folder, list(self.files))
        for path, source in zip(self.files, sources, strict=True):
            pixels = decoded(source, self.folder, KEY)
            yield AskedImage(source.name, source.caption, _prompt_in(source), path.with_suffix(".txt")), pixels

    def _alone(self) -> Iterator[SourceImage]:
        """One file, for which the folders beside it need not be searched for captions."""
        (path,) = self.files
        beside = path.with_suffix(".txt")
        try:
            # Whatever it holds, in whatever encoding, is a caption.
            caption = beside.read_bytes().decode("utf-8", "replace") if beside.is_file() else ""
            yield SourceImage(path.name, path.read_bytes(), caption.strip())
        except OSError as error:
            raise InputError(f"{KEY} {path} cannot be read ({error.strerror}); make it readable") from None

    def _of_set(self) -> Iterator[tuple[AskedImage, Image.Image]]:
        for path in shard_paths(self.folder):
            for row in read_table(path, ["image_id", "image", "prompt"]).to_pylist():
                try:
                    pixels = decode_image((row["image"] or {}).get("bytes"))
                except OSError as error:
                    reason = printable(str(error))[:200]
                    raise InputError(
                        f"{path}: image {printable(str(row['image_id']))} cannot be read ({reason}); delete the file "
                        "and run `dvc repro`"
                    ) from None
                yield AskedImage(row["image_id"], row["prompt"] or ""), pixels


def asked_images(what: str, study: Study) -> AskedImages:
    """The images at a path, or of an arm of the study by its name; an external arm is its folder.

    `reference` is the reference set, or the folder that it was made of. Raises InputError where there are no images,
    and for a file whose header cannot be read: that comes before anything is computed.
    """
    place = Path(what)
    if not place.exists():
        place = _of_study(what, study)
    if place.is_file():
        _check_header(place)
        return AskedImages(place.parent, (place,))
    if next(place.glob("part-*.parquet"), None) is not None:
        return AskedImages(place)
    # Links are followed: nothing here is watched by DVC.
    folder = place.resolve()
    files = tuple(image_files(folder, KEY))
    if not files:
        raise InputError(f"{KEY} {place} holds no images ({', '.join(SUFFIXES)}); name the folder they lie in")
    check_readable(folder, KEY)
    return AskedImages(folder, files)


def _of_study(name: str, study: Study) -> Path:
    if name in study.arms:
        own = study.arms[name].from_folder
        place = SETS / name if own is None else Path(own.folder)
    elif name == _REFERENCE:
        place = REFERENCE_SET if study.reference.source == TINYBOORU else Path(study.reference.source)
    else:
        known = [*study.arms, _REFERENCE]
        meant = f"did you mean {near}? " if (near := nearest(name, known)) else ""
        raise InputError(
            f"{KEY} {name} does not exist{said_missing(name)}; {meant}name an image, a folder of images, or one of the "
            f"study: {', '.join(known)}"
        )
    if not place.is_dir():
        raise InputError(f"{KEY} {name}: {place} does not exist; `guidedrift run` makes it")
    return place


def _check_header(path: Path) -> None:
    try:
        open_image(path.read_bytes(), FORMATS)
    except OSError as error:
        reason = error.strerror or printable(str(error))[:200]
        raise InputError(f"{KEY} {printable_name(path)} is not a readable image ({reason}); name another") from None


def _prompt_in(source: SourceImage) -> str:
    """The prompt in the file's metadata; empty where they have none or cannot be read."""
    try:
        found = read_metadata(open_image(source.content, FORMATS))
    except (OSError, *DAMAGED):
        return ""
    return found.metadata.prompt if found.metadata else ""


def check_caption_files(asked: AskedImages) -> None:
    """Raise InputError where captions cannot be written beside the images: of a set, or two for one file."""
    if not asked.files:
        raise InputError(
            f"{KEY} {asked.folder} is an image set, whose captions are its prompts; --captions writes text files "
            "beside the images of a folder: name one"
        )
    seen: dict[Path, Path] = {}
    for path in asked.files:
        beside = path.with_suffix(".txt")
        if (other := seen.setdefault(beside, path)) != path:
            raise InputError(
                f"{printable_name(other)} and {printable_name(path.name)} would share the caption "
                f"{printable_name(beside.name)}; rename one of them"
            )
