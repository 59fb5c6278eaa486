"""Paths that may lie elsewhere: a folder of this machine, or an fsspec URL such as s3://bucket/folder."""

from pathlib import Path
from urllib.parse import urlsplit

from fsspec import available_protocols
from upath import UPath

from pipeline.errors import InputError

AnyPath = Path | UPath


def known_place(place: str) -> str:
    """A place of the configuration, which may be empty.

    Raises ValueError for protocols that fsspec does not know and for URLs with a password: the configuration is
    published with the results.
    """
    if "://" not in place:
        return place
    parts = urlsplit(place)
    if parts.scheme not in available_protocols():
        raise ValueError(
            f"fsspec knows no protocol '{parts.scheme}'; take a folder, s3://bucket/... or gs://bucket/..."
        )
    if parts.username or parts.password:
        raise ValueError("must not hold credentials; they come from the environment (for S3: AWS_ACCESS_KEY_ID, ...)")
    return place


def path_of(place: str) -> AnyPath:
    """The path of a place. Raises InputError where the package that reads its protocol is not installed."""
    if "://" not in place:
        return Path(place)
    if place.startswith("file://"):
        return Path(urlsplit(place).path)
    try:
        path = UPath(place)
        path.fs  # noqa: B018 - made on first use, and that is what fails
    except ImportError as error:
        raise InputError(f"{place}: {error}") from None
    return path
