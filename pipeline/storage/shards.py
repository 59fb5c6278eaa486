"""Image sets on disk: parquet shards with the picture bytes, loadable by `datasets`.

A shard is written to a temporary name, flushed and renamed, so a file with a shard's name is a whole shard.
Its schema metadata carry the fingerprint of everything that determined its content, which is how a later run
knows a finished shard from a stale one, and its footer the checksum of its bytes, which is compared before anything
else of it is believed.
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features
from PIL import Image

from pipeline.errors import InputError, printable
from pipeline.storage.checksum import KEY, ROOM, is_whole, seal
from pipeline.storage.files import file_digest, fingerprint, write_atomically
from pipeline.storage.images import decode_picture
from pipeline.storage.remote_path import AnyPath

_FINGERPRINT = b"guidedrift.fingerprint"
# How the key stands in the footer: the key, then Thrift's field header and length of a string of 64 bytes.
_MARK = KEY.encode() + b"\x18\x40"
_END = b"PAR1"
# As `datasets` stores pictures.
_PICTURE = pa.struct({"bytes": pa.binary(), "path": pa.string()})
# Repeated values take no room in a file, so its size does not bound what is read. Scores have a row a picture.
_MOST_ROWS = 100_000_000


def encode_table(columns: Mapping[str, Sequence[Any]], features: Features, mark: str) -> bytes:
    """The parquet bytes of one shard; the same columns give the same bytes."""
    table = pa.Table.from_pydict(dict(columns), schema=features.arrow_schema)
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), _FINGERPRINT: mark.encode()})
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, table.schema) as writer:
        writer.write_table(table)
        # Of the footer alone: what is in the schema is there a second time, encoded.
        writer.add_key_value_metadata({KEY: ROOM})
    content = buffer.getvalue()
    return seal(content, content.rfind(_MARK) + len(_MARK))


def write_shard(path: AnyPath, columns: Mapping[str, Sequence[Any]], features: Features, mark: str) -> None:
    """Write one shard atomically; `mark` is the fingerprint that `shard_fingerprint` will return."""
    write_atomically(path, encode_table(columns, features, mark))


def shard_fingerprint(path: AnyPath) -> str | None:
    """The fingerprint a shard was written with; None where there is no such file or not a bit more or less than it."""
    try:
        return _fingerprint(pq.read_schema(pa.BufferReader(_checked(path))))
    except (InputError, pa.ArrowException, OSError, ValueError):
        return None


def table_fingerprint(table: pa.Table) -> str | None:
    """The fingerprint that a shard was written with, of the table that was read."""
    return _fingerprint(table.schema)


def _fingerprint(schema: pa.Schema) -> str | None:
    return (schema.metadata or {}).get(_FINGERPRINT, b"").decode() or None


def read_table(path: AnyPath, columns: Sequence[str] | None = None) -> pa.Table:
    """Read one shard.

    Raises InputError where the file is missing, has other bits than were written, or is not one of this project's.
    """
    try:
        content = pa.BufferReader(_checked(path))
        rows = pq.read_metadata(content).num_rows
        if rows > _MOST_ROWS:
            raise pa.ArrowInvalid(f"it declares {rows} rows; {_MOST_ROWS} are the most that are read")
        content.seek(0)
        table = pq.read_table(content, columns=None if columns is None else list(columns))
        # Arrow looks at neither offsets nor the encoding of texts when it reads.
        table.validate(full=True)
    # Names and texts of a damaged footer are decoded in Python, too.
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = printable(str(error))[:300]
        raise InputError(f"{path} is not a readable parquet shard ({reason}); delete it and run `dvc repro`") from None
    missing = set(columns or ()) - set(table.column_names)
    if missing:
        raise InputError(f"{path} lacks the columns {sorted(missing)}; delete it and run `dvc repro`")
    if "image" in table.column_names and table.schema.field("image").type != _PICTURE:
        raise InputError(f"{path} has no pictures in its column image; delete it and run `dvc repro`")
    return table


def _checked(path: AnyPath) -> bytes:
    """The bytes of a shard. Raises InputError where there is no file or its checksum is of other bytes."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; `dvc repro` makes it") from None
    # The footer is at the end, so this is the footer's even where a prompt spells the same.
    at = content.rfind(_MARK)
    if not content.endswith(_END):
        fault = f"is not a readable parquet shard (its end is missing after {len(content)} bytes)"
    elif at < 0:
        fault = "is a parquet file but not a guidedrift shard, or one without a checksum of an earlier version"
    elif not is_whole(content, at + len(_MARK)):
        fault = "is not a readable parquet shard (its checksum is of other bytes)"
    else:
        return content
    raise InputError(f"{path} {fault}; delete it and run `dvc repro`")


def shard_paths(folder: AnyPath) -> list[AnyPath]:
    """The shards of an image set, in order. Raises InputError where there are none."""
    paths: list[AnyPath] = [*folder.glob("part-*.parquet")]
    if not paths:
        raise InputError(f"{folder} holds no shards (part-*.parquet); `dvc repro` makes them")
    return sorted(paths, key=lambda path: path.name)


def read_set(folder: AnyPath, columns: Sequence[str] | None = None) -> pa.Table:
    """Read all shards of an image set, in order, into one table."""
    return pa.concat_tables([read_table(path, columns) for path in shard_paths(folder)])


def set_fingerprint(folder: AnyPath) -> str:
    """One fingerprint for an image set: of its shards' names and bytes."""
    return fingerprint([[path.name, file_digest(path)] for path in shard_paths(folder)])


def encode_png(image: Image.Image) -> bytes:
    """PNG bytes of an image, without metadata."""
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()


def decode_images(table: pa.Table) -> Iterable[Image.Image]:
    """RGB pictures of a table's `image` column, in order. Raises OSError for one that cannot be read."""
    for cell in table.column("image"):
        yield decode_picture(cell["bytes"].as_py())
