"""JSON that one stage writes and another reads, with its checksum as the first key."""

import re

from pipeline.errors import InputError
from pipeline.storage.checksum import ROOM, is_whole, seal
from pipeline.storage.remote_path import AnyPath

_BEGIN = b'{\n  "sha256": "'
_AT = len(_BEGIN)
_END = _AT + len(ROOM)


def seal_json(text: str) -> bytes:
    """The bytes of a file of this JSON object, which is not empty, with its checksum."""
    return seal(_BEGIN + f'{ROOM}",\n'.encode() + text.strip().removeprefix("{").lstrip("\n").encode() + b"\n", _AT)


def read_json_text(path: AnyPath) -> bytes:
    """The JSON object of a file without its checksum.

    A file without a checksum, which a person or an earlier version wrote, is read as it is. Raises InputError where the
    checksum is of other bytes, and FileNotFoundError.
    """
    content = path.read_bytes()
    # Either of the two says that there is one, so that damage to the other does not pass for a file without.
    if not content.startswith(_BEGIN) and not re.fullmatch(rb"[0-9a-f]{64}", content[_AT:_END]):
        return content
    if not is_whole(content, _AT):
        raise InputError(f"{path} is damaged (its checksum is of other bytes); delete it and run `dvc repro`")
    return b"{\n" + content[_END + len('",\n') :]
