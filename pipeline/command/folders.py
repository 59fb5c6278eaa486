"""Two folders of someone's images and a folder of real ones, made ready to be compared: checked, linked, counted."""

import os
from dataclasses import dataclass
from pathlib import Path

from pipeline.command.request import Request
from pipeline.errors import InputError
from pipeline.external.folder_images import check_readable, folder_images
from pipeline.external.pairing import shared
from pipeline.layout import IMAGES
from pipeline.overrides import literal
from pipeline.reference.source_folder import SUFFIXES, image_files
from pipeline.storage.file_names import printable_name, said_missing
from pipeline.study.from_folder import FromFolder

STUDY = "compare_folders"
# Where the files of folders that lie elsewhere are linked; DVC watches what lies in images/.
LINKED = IMAGES / "compared"
# The least that a study takes, and twice as many real images, of which disjoint halves are compared.
FEWEST = 10
# With more real images than this, and than two halves need, numbers hardly change and take longer.
_ENOUGH_REAL = 2048
_CALLED_FROM = "GUIDEDRIFT_CALLED_FROM"


@dataclass(frozen=True)
class Folders:
    """The two arms' folders and the real one's, as the study names them; how many images of each are compared, and
    what to know about that."""

    a: str
    b: str
    reference: str
    images: int
    real: int
    said: tuple[str, ...]
    titles: tuple[str, str]

    def request(self, overrides: tuple[str, ...] = ()) -> Request:
        """The study of these folders, with what else is asked of it."""
        texts = [
            f"arms.a.from_folder.folder={self.a}",
            f"arms.b.from_folder.folder={self.b}",
            f"+arms.a.description={self.titles[0]}",
            f"+arms.b.description={self.titles[1]}",
            f"reference.source={self.reference}",
        ]
        numbers = [f"reference.images={self.real}", f"generate.images={self.images}"]
        return Request(STUDY, overrides=(*map(literal, texts), *numbers, *overrides))


def prepared(a: str, b: str, reference: str, images: int | None = None) -> Folders:
    """The folders, each a path as the caller wrote it, checked before anything is computed. At most `images` of each.

    Raises InputError for a folder that is missing, empty, given twice or too small, and for files that are not images.
    """
    given = {"A": _folder("A", a), "B": _folder("B", b), "REFERENCE": _folder("REFERENCE", reference)}
    _check_apart(given)
    found = {}
    for name, folder in given.items():
        found[name] = len(image_files(folder, name))
        if not found[name]:
            raise InputError(f"{name} {folder} holds no images ({', '.join(SUFFIXES)}); name the folder they lie in")
        check_readable(folder, name)
    counts = ", ".join(f"{name} holds {count}" for name, count in found.items())
    if min(found["A"], found["B"]) < FEWEST or found["REFERENCE"] < 2 * FEWEST:
        raise InputError(
            f"too few images: {counts}; a comparison needs at least {FEWEST} in A, {FEWEST} in B and {2 * FEWEST} in "
            "REFERENCE (intervals that decide something need 64, 64 and 128): add images"
        )
    said = []
    most = min(found["A"], found["B"])
    if 2 * most > found["REFERENCE"]:
        most = found["REFERENCE"] // 2
        said.append(
            f"{counts}: {most} of A and of B are compared, as two disjoint halves of REFERENCE have to be as large; "
            f"{2 * min(found['A'], found['B'])} real images would do for all"
        )
    most = min(most, images or most)
    a_place, b_place, real_place = _watched(given)
    together = shared(
        [folder_images(name, FromFolder(folder=place)) for name, place in (("a", a_place), ("b", b_place))]
    )
    # Pairs tell more than as many images again that are none.
    if together < most <= 2 * together and together >= FEWEST:
        said.append(f"{together} images of A and B are pairs, by their names or seeds: these are compared")
        most = together
    return Folders(
        a_place,
        b_place,
        real_place,
        most,
        min(found["REFERENCE"], max(2 * most, _ENOUGH_REAL)),
        tuple(said),
        (given["A"].name, given["B"].name),
    )


def _folder(name: str, path: str) -> Path:
    if not path:
        raise InputError(f"{name} is empty; name a folder of images")
    folder = Path(os.environ.get(_CALLED_FROM, "."), path)
    if not folder.is_dir():
        what = "a file, not a folder" if folder.exists() else "not there"
        raise InputError(
            f"{name} {path} is {what}{said_missing(folder)}; name a folder of images ({', '.join(SUFFIXES)})"
        )
    return folder.resolve()


def _check_apart(given: dict[str, Path]) -> None:
    for one, other in (("A", "B"), ("A", "REFERENCE"), ("B", "REFERENCE")):
        if given[one] == given[other]:
            raise InputError(f"{one} and {other} are the same folder, {given[one]}; name two")
        for inner, outer in ((one, other), (other, one)):
            if given[inner].is_relative_to(given[outer]):
                raise InputError(
                    f"{inner} {given[inner]} lies in {outer} {given[outer]}, whose images would be its own; move it out"
                )


def _watched(given: dict[str, Path]) -> list[str]:
    """The folders as the study may name them: those in images/ as they are, others by links to their files there."""
    root = Path.cwd().resolve()
    places = []
    for name, folder in given.items():
        inside = folder.is_relative_to(root / IMAGES) and not folder.is_relative_to(root / LINKED)
        places.append(folder.relative_to(root).as_posix() if inside else _linked(folder, LINKED / name.lower()))
    return places


def _linked(folder: Path, place: Path) -> str:
    """Link the images and captions of a folder below `place`, and unlink what no longer belongs there.

    Raises InputError where someone's own files are there, which are left alone.
    """
    files = image_files(folder, printable_name(folder))
    files += [beside for path in files if (beside := path.with_suffix(".txt")).is_file()]
    wanted = {place / path.relative_to(folder): path for path in files}
    for old in [path for path in place.rglob("*") if not path.is_dir() or path.is_symlink()]:
        if not old.is_symlink():
            raise InputError(f"{old} is in the way of links to {folder}; move it elsewhere, for instance to images/own")
        if wanted.get(old) != Path(os.readlink(old)):
            old.unlink()
    for link, target in wanted.items():
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(target)
    return place.as_posix()
