"""The outputs that dvc.lock records, and their hashes computed from the bytes on disk.

DVC takes a file that kept its size and time stamp for unchanged, so it does not see a flipped bit.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dvc.exceptions import NotDvcRepoError
from dvc.output import Output
from dvc.repo import Repo

from pipeline.errors import InputError

# What people said is git's, and `pull` brings more of it at any time.
LABELS = Path("labels")


@dataclass(frozen=True)
class LockedFile:
    """A file that a stage wrote: its MD5, None where dvc.lock has none of it, and where DVC's cache has a copy."""

    path: Path
    md5: str | None
    cached: Path | None


def md5_of(path: Path) -> str:
    """The MD5 of a file's bytes, by which DVC calls it."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def locked_files() -> Iterator[LockedFile]:
    """The files of every stage's outputs, and those that lie among them but are not recorded. Raises InputError.

    Of a folder only DVC's cache knows the files; where it does not have the list, the folder stands for them.
    """
    try:
        repo = Repo()
    except NotDvcRepoError:
        raise InputError(f"{Path.cwd()} is not a DVC repository; run this in the project's folder") from None
    for out in repo.index.outs:
        path = Path(out.fs_path).relative_to(repo.root_dir)
        if path.parent != LABELS:
            yield from _files(path, out, repo)


def folder_md5(folder: Path) -> str:
    """What DVC calls a folder's content: the MD5 of the list of its files."""
    files = sorted(_own_files(folder).items())
    listed = json.dumps([{"md5": md5_of(path), "relpath": name} for name, path in files], sort_keys=True)
    return f"{hashlib.md5(listed.encode()).hexdigest()}.dir"


def _files(path: Path, out: Output, repo: Repo) -> Iterator[LockedFile]:
    value = out.hash_info.value if out.hash_info else None

    def cached(md5: str) -> Path | None:
        return Path(repo.cache.local.oid_to_path(md5)) if out.use_cache else None

    if value is None or not value.endswith(".dir"):
        yield LockedFile(path, value, None if value is None else cached(value))
        return
    listed = _listed(Path(repo.cache.local.oid_to_path(value)), value)
    if listed is None:
        yield LockedFile(path, value, None)
        return
    for name, md5 in listed.items():
        yield LockedFile(path / name, md5, cached(md5))
    for name in sorted(set(_own_files(path)) - set(listed)):
        yield LockedFile(path / name, None, None)


def _own_files(folder: Path) -> Mapping[str, Path]:
    """The files of an output by name, without what killed writes have left, which .dvcignore leaves out."""
    files = (path for path in folder.rglob("*") if path.suffix != ".tmp" and path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in files}


def _listed(path: Path, value: str) -> Mapping[str, str] | None:
    """The hashes of a folder's files by name, from DVC's cache; None where it has no whole list."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    if f"{hashlib.md5(content).hexdigest()}.dir" != value:
        return None
    return {entry["relpath"]: entry["md5"] for entry in json.loads(content)}
