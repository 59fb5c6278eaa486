"""Image sets on disk: parquet shards with the picture bytes, loadable by `datasets`.

A shard is written to a temporary name, flushed and renamed, so a file with a shard's name is a whole shard.
Its schema metadata carry the fingerprint of everything that determined its content, which is how a later run
knows a finished shard from a stale one.
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features
from PIL import Image

from pipeline.errors import InputError
from pipeline.files import file_digest, fingerprint, write_atomically

_FINGERPRINT = b"guidedrift.fingerprint"


def encode_table(columns: Mapping[str, Sequence[Any]], features: Features, mark: str) -> bytes:
    """The parquet bytes of one shard; the same columns give the same bytes."""
    table = pa.Table.from_pydict(dict(columns), schema=features.arrow_schema)
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), _FINGERPRINT: mark.encode()})
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def write_shard(path: Path, columns: Mapping[str, Sequence[Any]], features: Features, mark: str) -> None:
    """Write one shard atomically; `mark` is the fingerprint that `shard_fingerprint` will return."""
    write_atomically(path, encode_table(columns, features, mark))


def shard_fingerprint(path: Path) -> str | None:
    """The fingerprint a shard was written with; None where there is no such file or it is no whole shard."""
    if not path.exists():
        return None
    try:
        metadata = pq.read_schema(path).metadata or {}
        return metadata.get(_FINGERPRINT, b"").decode() or None
    except (pa.ArrowInvalid, OSError):
        return None


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read one shard.

    Raises InputError where the file is missing, truncated, or not one of this project's shards.
    """
    try:
        table = pq.read_table(path, columns=None if columns is None else list(columns))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; `dvc repro` makes it") from None
    except (pa.ArrowInvalid, pa.ArrowKeyError, OSError) as error:
        raise InputError(f"{path} is not a readable parquet shard ({error}); delete it and run `dvc repro`") from None
    if _FINGERPRINT not in (table.schema.metadata or {}):
        raise InputError(f"{path} is a parquet file but not a guidedrift shard; delete it and run `dvc repro`")
    missing = set(columns or ()) - set(table.column_names)
    if missing:
        raise InputError(f"{path} lacks the columns {sorted(missing)}; delete it and run `dvc repro`")
    return table


def shard_paths(folder: Path) -> list[Path]:
    """The shards of an image set, in order. Raises InputError where there are none."""
    paths = sorted(folder.glob("part-*.parquet"))
    if not paths:
        raise InputError(f"{folder} holds no shards (part-*.parquet); `dvc repro` makes them")
    return paths


def read_set(folder: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read all shards of an image set, in order, into one table."""
    return pa.concat_tables([read_table(path, columns) for path in shard_paths(folder)])


def set_fingerprint(folder: Path) -> str:
    """One fingerprint for an image set: of its shards' names and bytes."""
    return fingerprint([[path.name, file_digest(path)] for path in shard_paths(folder)])


def encode_png(image: Image.Image) -> bytes:
    """PNG bytes of an image, without metadata."""
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()


def decode_images(table: pa.Table) -> Iterable[Image.Image]:
    """RGB pictures of a table's `image` column, in order."""
    for cell in table.column("image"):
        yield Image.open(io.BytesIO(cell["bytes"].as_py())).convert("RGB")
