"""A file's checksum inside the file, so that whoever reads it knows whether it has the bits that were written.

A format's writer leaves room for it in a field that other readers skip. The SHA-256 is that of all bytes with the room
still empty, and then takes its place: the same content gives the same file, which needs no second one beside it.
"""

import hashlib

KEY = "guidedrift.sha256"
# The room: as long as the hexadecimal digest, and no digest itself.
ROOM = "0" * 64


def seal(content: bytes, at: int) -> bytes:
    """`content` with its checksum in the room that begins at byte `at`."""
    return b"".join((content[:at], _checksum(content, at), content[at + len(ROOM) :]))


def is_whole(content: bytes, at: int) -> bool:
    """Whether the checksum that begins at byte `at` is that of the other bytes."""
    return content[at : at + len(ROOM)] == _checksum(content, at)


def _checksum(content: bytes, at: int) -> bytes:
    view = memoryview(content)
    digest = hashlib.sha256(view[:at])
    digest.update(ROOM.encode())
    digest.update(view[at + len(ROOM) :])
    return digest.hexdigest().encode()
