"""Image sets on disk: parquet shards with the image bytes, loadable by `datasets`.

A shard is written to a temporary name, flushed and renamed, so a file with a shard's name is a whole shard.
Its schema metadata carry the fingerprint of everything that determined its content, which is how a later run
knows a finished shard from a stale one, and its footer the checksum of its bytes, which is compared before anything
else of it is believed.
"""

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features
from PIL import Image

from pipeline.errors import InputError, printable
from pipeline.storage.checksum import KEY, ROOM, is_whole, seal
from pipeline.storage.files import file_digest, fingerprint, write_atomically
from pipeline.storage.images import decode_image
from pipeline.storage.remote_path import AnyPath

_FINGERPRINT = b"guidedrift.fingerprint"
# How the key stands in the footer: the key, then Thrift's field header and length of a string of 64 bytes.
_MARK = KEY.encode() + b"\x18\x40"
_END = b"PAR1"
# As `datasets` stores images.
_IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})
# Repeated values take no room in a file, so its size does not bound what is read. Scores have a row an image.
_MOST_ROWS = 100_000_000
# Arrow reads at most 2 GiB of nested values, such as images, of a row group. Read by whoever reads one group at a time.
GROUP_BYTES = 2**28
# A shard is in memory as a whole, several times while it is written. In bytes of pixels, which PNG makes fewer.
SHARD_BYTES = 2**30


def encode_table(columns: Mapping[str, Sequence[Any]], features: Features, mark: str) -> bytes:
    """The parquet bytes of one shard; the same columns give the same bytes."""
    schema = features.arrow_schema
    schema = schema.with_metadata({**(schema.metadata or {}), _FINGERPRINT: mark.encode()})
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, schema) as writer:
        for part in _in_groups(columns):
            writer.write_table(pa.Table.from_pydict(dict(part), schema=schema))
        # Of the footer alone: what is in the schema is there a second time, encoded.
        writer.add_key_value_metadata({KEY: ROOM})
    content = buffer.getvalue()
    return seal(content, content.rfind(_MARK) + len(_MARK))


def row_groups(sizes: Sequence[int], most_bytes: int, most_rows: int | None = None) -> Iterator[slice]:
    """Rows of these sizes in groups of at most `most_bytes`, or of one row that is larger; no rows are one group."""
    start = size = 0
    for row, own in enumerate(sizes):
        if row > start and (size + own > most_bytes or row - start == most_rows):
            yield slice(start, row)
            start, size = row, 0
        size += own
    yield slice(start, len(sizes))


def _in_groups(columns: Mapping[str, Sequence[Any]]) -> Iterator[Mapping[str, Sequence[Any]]]:
    # Beside images a row has a few hundred bytes.
    sizes = [len((cell or {}).get("bytes") or b"") for cell in columns.get("image", ())]
    groups = list(row_groups(sizes, GROUP_BYTES))
    if len(groups) == 1:
        yield columns
        return
    for group in groups:
        yield {name: values[group] for name, values in columns.items()}


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
        table = _read_groups(_checked(path), None if columns is None else list(columns))
        # Arrow looks at neither offsets nor the encoding of texts when it reads.
        table.validate(full=True)
    # Names and texts of a damaged footer are decoded in Python, too.
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = printable(str(error))[:300]
        raise InputError(f"{path} is not a readable parquet shard ({reason}); delete it and run `dvc repro`") from None
    missing = set(columns or ()) - set(table.column_names)
    if missing:
        raise InputError(f"{path} lacks the columns {sorted(missing)}; delete it and run `dvc repro`")
    if "image" in table.column_names and table.schema.field("image").type != _IMAGE:
        raise InputError(f"{path} has no images in its column image; delete it and run `dvc repro`")
    return table


def _read_groups(content: bytes, columns: list[str] | None) -> pa.Table:
    with pq.ParquetFile(pa.BufferReader(content)) as file:
        rows = file.metadata.num_rows
        if rows > _MOST_ROWS:
            raise pa.ArrowInvalid(f"it declares {rows} rows; at most {_MOST_ROWS} are read")
        groups = [_read_group(file, k, columns) for k in range(file.num_row_groups)] or [file.read(columns)]
    table = pa.concat_tables(groups)
    # The checksum is of the file and not of what is read from it.
    metadata = {key: value for key, value in (table.schema.metadata or {}).items() if key != KEY.encode()}
    return table.replace_schema_metadata(metadata)


def _read_group(file: pq.ParquetFile, k: int, columns: list[str] | None) -> pa.Table:
    group = file.metadata.row_group(k)
    if group.total_byte_size <= GROUP_BYTES:
        return file.read_row_group(k, columns)
    # An earlier version wrote a shard as one group of any size, which can be read in pieces alone.
    rows = max(1, group.num_rows * GROUP_BYTES // group.total_byte_size)
    batches = list(file.iter_batches(rows, [k], columns))
    return pa.Table.from_batches(batches, batches[0].schema if batches else None)


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
    """RGB images of a table's `image` column, in order. Raises OSError for one that cannot be read."""
    for cell in table.column("image"):
        yield decode_image(cell["bytes"].as_py())
