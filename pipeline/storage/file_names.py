"""Names of files that DVC, parquet and terminals can take."""

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import InputError


def printable_name(name: str | os.PathLike[str]) -> str:
    r"""A file's name in one line that shows every byte: a line break as \n, bytes that are not UTF-8 as \xe9."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def check_names(folder: Path) -> None:
    """Raise InputError where a file or folder below `folder` has a name that is not UTF-8.

    DVC, which watches the folder, ends at such a name with an error that names no file, and parquet cannot store it.
    """
    wrong = sorted(path for path in _names(folder) if not _is_utf8(path))
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise InputError(
            f"{printable_name(wrong[0])}{more}: the name is not UTF-8; rename it, "
            f"for instance with `convmv -r --notest -f latin1 -t utf8 {printable_name(folder)}`"
        )


def looks_like(name: str) -> str:
    """What two names have in common that a person takes for one: é in one character or two (macOS), or in capitals."""
    return unicodedata.normalize("NFC", name).casefold().strip()


def said_missing(path: str | os.PathLike[str]) -> str:
    """What to add where a path does not exist and one beside it looks the same; empty where none does."""
    missing = next((part for part in reversed([Path(path), *Path(path).parents]) if not part.exists()), None)
    if missing is None or not missing.parent.is_dir():
        return ""
    twins = sorted(one.name for one in missing.parent.iterdir() if looks_like(one.name) == looks_like(missing.name))
    if not twins:
        return ""
    # In ASCII, so that the difference shows.
    return f" ({missing.parent} holds {twins[0]!a}, and the name asked for is {missing.name!a}: rename one of them)"


def _names(folder: Path) -> Iterator[str]:
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            yield os.path.join(place, name)


def _is_utf8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
