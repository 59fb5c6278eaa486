"""What comes from outside is bounded in size before it takes memory or time."""

import io
import json
import struct
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Features, Value
from PIL import Image
from safetensors import SafetensorError, safe_open

from labeling.records import read_labels
from pipeline.compose import compose
from pipeline.errors import InputError
from pipeline.storage import shards
from pipeline.storage.images import MOST_PIXELS, decode_image, open_image
from pipeline.storage.shards import encode_png, read_table, write_shard
from pipeline.study.plain_yaml import LARGEST_FILE, read_yaml
from pipeline.study.study import load_study


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int) -> bytes:
    """A PNG of a few bytes that declares that size and has none of its pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_the_largest_canvas_is_opened() -> None:
    assert open_image(png(4096, 4096)).size == (4096, 4096)


@pytest.mark.parametrize("size", [(4097, 4096), (MOST_PIXELS + 1, 1), (30_000, 30_000), (2**31 - 1, 2**31 - 1)])
def test_an_image_that_declares_more_pixels_is_refused_before_it_is_decoded(size: tuple[int, int]) -> None:
    with pytest.raises(OSError, match=r"pixels|exceeds limit"):
        open_image(png(*size))


@pytest.mark.parametrize("kind", ["jpeg", "gif", "webp", "tiff", "eps", "bmp", "ppm"])
def test_other_formats_than_png_are_refused(kind: str) -> None:
    """Pillow reads EPS by running Ghostscript; and sets hold PNG alone."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, kind)
    with pytest.raises(OSError, match="it is not a PNG image, or its header is damaged"):
        open_image(buffer.getvalue())


def test_an_image_with_a_bomb_in_its_text_is_refused() -> None:
    whole = encode_png(Image.new("RGB", (8, 8)))
    bomb = chunk(b"zTXt", b"x\0\0" + zlib.compress(b"0" * 100_000_000))
    with pytest.raises(OSError, match="unpacks to more than 16 MiB"):
        decode_image(whole[:33] + bomb + whole[33:])


def test_an_image_with_a_chunk_that_is_cut_is_refused() -> None:
    # Behind the pixels, where Pillow reads it while it decodes; the fuzzer found it.
    whole = encode_png(Image.new("RGB", (8, 8)))
    with pytest.raises(OSError, match="index out of range"):
        decode_image(whole[:-12] + chunk(b"iCCP", b"a profile\0") + whole[-12:])


def test_a_shard_of_more_rows_than_any_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "part-00000.parquet"
    write_shard(path, {"arm": ["same"] * 100_000}, Features({"arm": Value("string")}), "mark")
    assert path.stat().st_size < 5_000
    assert len(read_table(path)) == 100_000
    monkeypatch.setattr(shards, "_MOST_ROWS", 99_999)
    with pytest.raises(InputError, match="declares 100000 rows; at most 99999 are read"):
        read_table(path)


def test_texts_of_a_shard_that_are_no_texts_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "part-00000.parquet"
    write_shard(path, {"arm": ["abcdefgh"]}, Features({"arm": Value("string")}), "mark")
    broken = pa.array([b"\xff\xfe"]).cast(pa.binary()).view(pa.string())
    table = pa.table({"arm": broken}, schema=pq.read_schema(path))
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, table.schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({shards.KEY: shards.ROOM})
    content = buffer.getvalue()
    path.write_bytes(shards.seal(content, content.rfind(shards._MARK) + len(shards._MARK)))
    with pytest.raises(InputError, match=r"not a readable parquet shard \(.*UTF8"):
        read_table(path)


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (LAUGHS, "aliases .* more than 100000 values"),
        ("a: &a [*a]\n", "aliases .* more than 100000 values"),
        ("a: &a {b: 1}\nc: {<<: *a}\n" + "#" * LARGEST_FILE, "is larger than 1048576 bytes"),
        ("[" * 100_000, "is not YAML .*recursion"),
    ],
    ids=["a billion laughs", "a list of itself", "a large file", "deep brackets"],
)
def test_yaml_that_would_fill_the_memory_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "params.yaml").write_text(content)
    with pytest.raises(InputError, match=message):
        load_study(tmp_path / "params.yaml")


def test_a_study_in_conf_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/config.yaml").write_text(LAUGHS)
    with pytest.raises(InputError, match=r"config\.yaml holds aliases"):
        compose(tmp_path / "conf", [])


def test_aliases_in_bounds_are_read(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("a: &a {x: 1}\nb: {<<: *a, y: 2}\n")
    assert read_yaml(tmp_path / "x.yaml", "") == {"a": {"x": 1}, "b": {"x": 1, "y": 2}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"x" * 2_000_000, "tasks.jsonl:1 is longer than 1048576 bytes"),
        (b"\n\n" + b"[" * 100_000 + b"\n", "tasks.jsonl:3 is not JSON"),
        (b'{"task_id": ' + b"9" * 10_000 + b"}\n", "tasks.jsonl:1 is not JSON"),
    ],
    ids=["a long line", "deep brackets", "a long number"],
)
def test_a_label_file_that_would_fill_the_memory_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "tasks.jsonl").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_labels(tmp_path / "tasks.jsonl")


@pytest.mark.parametrize("length", [2**63, 2**40, 200_000_000])
def test_weights_with_a_giant_header_are_refused_by_their_library(tmp_path: Path, length: int) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b"{}")
    with pytest.raises(SafetensorError, match="header too large"), safe_open(path, framework="pt"):
        pass


def test_weights_that_declare_more_than_the_file_holds_are_refused_by_their_library(tmp_path: Path) -> None:
    header = json.dumps({"x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(SafetensorError), safe_open(path, framework="pt"):
        pass
