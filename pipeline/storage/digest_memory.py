"""SHA-256 of files, of which those of large files are remembered from run to run."""

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path

from pipeline.storage.files import write_atomically

# Hashing gigabytes at every start would take longer than looking at their time stamps.
_LARGE = 64 * 2**20


def remembered_sha256(path: Path) -> str:
    """The SHA-256 of a file; that of a large one is remembered under its place, length and time stamp."""
    state = path.stat()
    if state.st_size < _LARGE:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    key = f"{path.resolve()} {state.st_size} {state.st_mtime_ns}"
    memory = _memory()
    known = {} if memory is None else _remembered(memory)
    if key not in known:
        with open(path, "rb") as file:
            known[key] = hashlib.file_digest(file, "sha256").hexdigest()
        if memory is not None:
            # A home that cannot be written costs time at the next start, and nothing else.
            with suppress(OSError):
                write_atomically(memory, json.dumps(known, indent=1).encode())
    return known[key]


def cache_folder() -> Path | None:
    """This user's cache of ours, which may be deleted at any time; None where this user has no home."""
    cache = os.environ.get("XDG_CACHE_HOME")
    try:
        folder = Path(cache) if cache else Path.home() / ".cache"
    except RuntimeError:
        return None
    return folder / "guidedrift"


def _memory() -> Path | None:
    folder = cache_folder()
    return None if folder is None else folder / "digests.json"


def _remembered(memory: Path) -> dict[str, str]:
    try:
        known = json.loads(memory.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
