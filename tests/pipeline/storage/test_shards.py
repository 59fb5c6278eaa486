"""What is written can be read back, however large: row groups and shards are bounded by bytes."""

import io
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Features, Image, Value
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PillowImage

from pipeline.reference.image_folder import copy_images
from pipeline.storage import shards
from pipeline.storage.checksum import KEY, ROOM, seal
from pipeline.storage.shards import (
    decode_images,
    encode_png,
    encode_table,
    read_set,
    read_table,
    row_groups,
    shard_fingerprint,
    table_fingerprint,
)

FEATURES = Features({"image_id": Value("string"), "image": Image(), "prompt": Value("string")})


def noise(k: int) -> PillowImage.Image:
    """32 x 32 pixels that PNG makes no smaller: 3 kB."""
    return PillowImage.fromarray(np.random.default_rng(k).integers(0, 256, (32, 32, 3), dtype=np.uint8))


def rows(count: int) -> dict[str, Sequence[Any]]:
    return {
        "image_id": [f"image-{k}" for k in range(count)],
        "image": [{"bytes": encode_png(noise(k)), "path": None} for k in range(count)],
        "prompt": [f"number {k}" for k in range(count)],
    }


def group_rows(content: bytes) -> list[int]:
    metadata = pq.read_metadata(io.BytesIO(content))
    return [metadata.row_group(k).num_rows for k in range(metadata.num_row_groups)]


def one_group(columns: dict[str, Sequence[Any]], mark: str, captions: pa.DataType | None = None) -> bytes:
    """A shard as one row group of any size, as earlier versions wrote all; or with captions of another type."""
    table = pa.Table.from_pydict(dict(columns), schema=FEATURES.arrow_schema)
    if captions is not None:
        schema = table.schema.set(2, pa.field("prompt", captions))
        table = pa.Table.from_arrays([*table.columns[:2], table.column("prompt").cast(captions)], schema=schema)
    table = table.replace_schema_metadata({**table.schema.metadata, b"guidedrift.fingerprint": mark.encode()})
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, table.schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({KEY: ROOM})
    content = buffer.getvalue()
    mark_at = KEY.encode() + b"\x18\x40"
    return seal(content, content.rfind(mark_at) + len(mark_at))


@pytest.mark.parametrize("count", [0, 1, 20])
def test_a_small_shard_has_the_bytes_that_it_always_had(count: int) -> None:
    assert encode_table(rows(count), FEATURES, "mark") == one_group(rows(count), "mark")


def test_a_large_shard_is_written_and_read_by_row_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = rows(20)
    monkeypatch.setattr(shards, "GROUP_BYTES", 10_000)
    path = tmp_path / "part-00000.parquet"
    path.write_bytes(encode_table(columns, FEATURES, "mark"))
    assert group_rows(path.read_bytes()) == [3, 3, 3, 3, 3, 3, 2]
    assert shard_fingerprint(path) == table_fingerprint(read_table(path)) == "mark"
    assert read_table(path).to_pydict() == columns
    assert read_table(path, ["prompt"]).to_pydict() == {"prompt": columns["prompt"]}
    for k, image in enumerate(decode_images(read_set(tmp_path, ["image"]))):
        assert image.tobytes() == noise(k).tobytes()


def test_a_row_group_that_arrow_cannot_read_at_once_is_read_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shards of earlier versions need not be generated again. The bound is lowered, since Arrow's own is 2 GiB."""
    columns = rows(20)
    path = tmp_path / "part-00000.parquet"
    path.write_bytes(one_group(columns, "mark"))
    monkeypatch.setattr(shards, "GROUP_BYTES", 10_000)
    table = read_table(path)
    assert group_rows(path.read_bytes()) == [20]
    assert table.column("image").num_chunks > 5
    assert (table.to_pydict(), table_fingerprint(table)) == (columns, "mark")


@pytest.mark.parametrize("kind", [pa.string_view(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_captions_of_a_reference_shard_are_read_from_every_kind_of_text_column(
    tmp_path: Path, kind: pa.DataType
) -> None:
    source, copied = tmp_path / "images", tmp_path / "reference"
    source.mkdir()
    (source / "part-00000.parquet").write_bytes(one_group(rows(10), "mark", kind))
    assert read_table(source / "part-00000.parquet").schema.field("prompt").type == kind
    copy_images(source, copied, 10, 0)
    assert read_set(copied, ["prompt"]).to_pydict() == {"prompt": rows(10)["prompt"]}


def test_transparent_images_of_a_shard_are_on_white(tmp_path: Path) -> None:
    hidden = noise(0).convert("RGBA")
    hidden.putalpha(0)
    columns = {**rows(1), "image": [{"bytes": encode_png(hidden), "path": None}]}
    (tmp_path / "part-00000.parquet").write_bytes(encode_table(columns, FEATURES, "mark"))
    (shown,) = decode_images(read_set(tmp_path, ["image"]))
    assert (np.asarray(shown) == 255).all()


def test_a_shard_of_one_image_above_the_bound_has_it_in_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "GROUP_BYTES", 100)
    assert group_rows(encode_table(rows(3), FEATURES, "mark")) == [1, 1, 1]


def test_images_that_are_missing_take_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "GROUP_BYTES", 10_000)
    columns = {**rows(3), "image": [None, {"bytes": None, "path": "elsewhere.png"}, {"bytes": b"x", "path": None}]}
    path = tmp_path / "part-00000.parquet"
    path.write_bytes(encode_table(columns, FEATURES, "mark"))
    assert read_table(path).to_pydict() == columns


@given(
    sizes=st.lists(st.integers(0, 50), max_size=30),
    most_bytes=st.integers(1, 100),
    most_rows=st.none() | st.integers(1, 8),
)
def test_groups_hold_every_row_once_within_their_bounds(
    sizes: list[int], most_bytes: int, most_rows: int | None
) -> None:
    groups = [sizes[group] for group in row_groups(sizes, most_bytes, most_rows)]
    assert [size for group in groups for size in group] == sizes
    assert all(sum(group) <= most_bytes or len(group) == 1 for group in groups)
    assert all(len(group) <= (most_rows or 30) for group in groups)
    assert all(groups) or groups == [[]]
    # As few as can be: no row would have fitted into the group before.
    for before, after in itertools.pairwise(groups):
        assert sum(before) + after[0] > most_bytes or len(before) == most_rows
