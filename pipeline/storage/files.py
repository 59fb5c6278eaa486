"""Digests of content, and writes that are whole or not there."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from pipeline.storage.remote_path import AnyPath


def fingerprint(content: Any) -> str:
    """Hex digest (16 characters) of any JSON-serialisable content; key order does not matter."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_digest(path: AnyPath) -> str:
    """Hex digest (16 characters) of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()[:16]


def remove_leftovers(folder: Path) -> None:
    """Delete what killed writes have left in a folder that no one else writes to now."""
    for leftover in folder.glob(".*.tmp"):
        leftover.unlink()


def write_atomically(path: AnyPath, content: bytes) -> None:
    """Write `content` under a temporary name in the same folder and rename it to `path`; object stores need no name."""
    if not isinstance(path, Path):
        path.write_bytes(content)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
