"""Scores that others gave to an external arm's images, from a CSV or parquet file, joined by file name."""

import math
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import pandas as pd
import pyarrow as pa

from pipeline.errors import InputError
from pipeline.storage.file_names import printable_name

FILE = "file"
_MOST_SCORES = 50
_LONGEST_NAME = 60


def joined_scores(path: Path, key: str, files: Sequence[str]) -> list[dict[str, float]]:
    """The scores of each of the `files`, by name; empty for one that the table does not name.

    The table names files in its column `file`, by their path below the folder or by their last part where that is
    unique. `key` is the setting that names the table. Raises InputError for a table that cannot be read, that has no
    numbers, or that names none of the files.
    """
    table = _read(path, key)
    if FILE not in table.columns:
        raise InputError(f"{key} {path} has no column '{FILE}', which names the image; it has {_listed(table)}")
    scores = [str(name) for name in table.columns if name != FILE and pd.api.types.is_numeric_dtype(table[name])]
    if not scores:
        raise InputError(f"{key} {path} has no column of numbers beside '{FILE}'; it has {_listed(table)}")
    wrong = [name for name in scores if len(name) > _LONGEST_NAME or not name.isprintable()]
    if wrong or len(scores) > _MOST_SCORES:
        what = f"a column called {wrong[0][:80]!r}" if wrong else f"{len(scores)} columns of numbers"
        raise InputError(
            f"{key} {path} has {what}; at most {_MOST_SCORES} scores with names of {_LONGEST_NAME} letters are read"
        )
    rows: dict[str, dict[str, float]] = {}
    for row in table[[FILE, *scores]].to_dict("records"):
        name = PurePosixPath(str(row.pop(FILE)).replace("\\", "/")).as_posix()
        if name in rows:
            raise InputError(f"{key} {path} has two rows of {printable_name(name)}; leave one")
        rows[name] = {str(score): float(value) for score, value in row.items() if math.isfinite(value)}
    found = [rows.get(name) for name in _known_as(files, rows)]
    if not any(found):
        first = printable_name(next(iter(rows), ""))
        raise InputError(
            f"{key} {path} names none of the images (its first is '{first}', the folder's "
            f"'{printable_name(files[0])}'); write their paths below the folder into '{FILE}'"
        )
    return [one or {} for one in found]


def _known_as(files: Sequence[str], rows: dict[str, dict[str, float]]) -> list[str]:
    """What the table calls each file: its path, or its last part where no other file has it."""
    last = [PurePosixPath(name).name for name in files]
    return [name if name in rows or last.count(short) > 1 else short for name, short in zip(files, last, strict=True)]


def _read(path: Path, key: str) -> pd.DataFrame:
    if not path.is_file():
        raise InputError(f"{key} {path} is not a file; name a CSV or parquet file")
    try:
        if path.suffix.lower() == ".parquet":
            return pd.read_parquet(path)
        return pd.read_csv(path, dtype={FILE: str})
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{key} {path} is not a readable CSV or parquet file ({reason})") from None


def _listed(table: pd.DataFrame) -> str:
    return ", ".join(str(name)[:_LONGEST_NAME] for name in table.columns[:10]) or "none"
