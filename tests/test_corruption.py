"""Damaged artefacts: whoever reads one says so and which, and the next run makes it anew."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Features, Value
from safetensors import safe_open

from pipeline.errors import InputError
from pipeline.json_file import read_json_text, seal_json
from pipeline.shards import encode_table, read_table, shard_fingerprint, write_shard
from pipeline.tensor_file import encode_tensors, read_tensors

COLUMNS = {"image_id": ["a", "b", "c"], "value": [0.5, 1.5, 2.5]}
FEATURES = Features({"image_id": Value("string"), "value": Value("float64")})
# A prompt may spell what the footer says.
HOSTILE = {**COLUMNS, "image_id": ["guidedrift.sha256\x18\x40" + "0" * 64, '\\"guidedrift.sha256\\": \\"', "PAR1"]}


def shard(columns: dict[str, list[object]]) -> bytes:
    return encode_table(columns, FEATURES, "mark")


def tensors(columns: dict[str, list[object]]) -> bytes:
    known = {"ids": columns["image_id"], "provenance": {"extractor": "clip"}}
    return encode_tensors({"images": torch.tensor(columns["value"])}, known)


def numbers(columns: dict[str, list[object]]) -> bytes:
    return seal_json(json.dumps({"study": "small", **columns}, indent=2))


def read_numbers(path: Path) -> dict[str, object]:
    """As the stages read: a key that nobody knows is damage."""
    try:
        content = json.loads(read_json_text(path))
    except ValueError as error:
        raise InputError(f"{path} is no JSON ({error}); delete it and run `dvc repro`") from None
    return content


KINDS = [(shard, read_table), (tensors, read_tensors), (numbers, read_numbers)]


@pytest.mark.parametrize(("content", "read"), KINDS)
def test_any_flipped_bit_and_any_lost_end_is_noticed(content, read, tmp_path):
    whole = content(COLUMNS)
    path = tmp_path / "artefact"
    path.write_bytes(whole)
    read(path)
    damaged = [whole[:length] for length in range(0, len(whole), 7)]
    for at in range(len(whole)):
        damaged.append(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
    for bits in damaged:
        path.write_bytes(bits)
        with pytest.raises(InputError, match=r"artefact .*delete it and run `dvc repro`"):
            read(path)


@pytest.mark.parametrize("content", [content for content, _ in KINDS])
def test_equal_content_gives_equal_bytes(content):
    assert len({content(COLUMNS) for _ in range(8)}) == 1


def test_a_damaged_shard_is_not_finished(tmp_path):
    path = tmp_path / "part-00000.parquet"
    write_shard(path, COLUMNS, FEATURES, "mark")
    assert shard_fingerprint(path) == "mark"
    middle = path.stat().st_size // 2
    whole = path.read_bytes()
    path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    assert shard_fingerprint(path) is None


def test_content_that_spells_the_checksum_is_read(tmp_path):
    path = tmp_path / "artefact"
    path.write_bytes(shard(HOSTILE))
    assert read_table(path).to_pydict() == HOSTILE
    path.write_bytes(tensors(HOSTILE))
    assert read_tensors(path)[1]["ids"] == HOSTILE["image_id"]
    path.write_bytes(numbers(HOSTILE))
    assert read_numbers(path) == {"study": "small", **HOSTILE}


def test_other_readers_read_the_files_too(tmp_path):
    path = tmp_path / "artefact"
    path.write_bytes(shard(COLUMNS))
    assert pq.read_table(path).to_pydict() == COLUMNS
    path.write_bytes(tensors(COLUMNS))
    with safe_open(path, framework="pt") as file:
        assert file.get_tensor("images").tolist() == COLUMNS["value"]


def test_a_shard_of_an_earlier_version_is_stale_and_says_so(tmp_path):
    path = tmp_path / "part-00000.parquet"
    pq.write_table(pa.Table.from_pydict(COLUMNS).replace_schema_metadata({"guidedrift.fingerprint": "mark"}), path)
    assert shard_fingerprint(path) is None
    with pytest.raises(InputError, match="not a guidedrift shard, or one without a checksum of an earlier version"):
        read_table(Path(path))
