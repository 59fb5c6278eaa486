"""The configuration `pairs` of a dataset: one row per seed, one column of images per arm.

The Hub's viewer shows one configuration at a time, so arms stand side by side only where one configuration holds them
all. Its images are copies of those in the arms' configurations.
"""

import hashlib
from collections.abc import Collection, Sequence
from contextlib import closing
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Features, Image, Value, load_dataset

from pipeline.errors import InputError
from pipeline.publishing.viewer_groups import viewer_groups
from pipeline.storage.shards import read_table, shard_paths

FILE = Path("pairs/part-00000.parquet")
# Bytes of images that are copied, and that are in memory at once. Beyond them, whoever wants all pairs joins the arms'
# configurations by `pair_id`.
MOST_BYTES = 1_000_000_000
_SHARED = ("seed", "prompt", "pair_id")


def configuration_name(arms: Collection[str]) -> str:
    """`pairs`, or a name that no arm can have where an arm is called so."""
    return "pairs" if "pairs" not in arms else "pairs-of-arms"


def image_columns(arms: Sequence[str]) -> dict[str, str]:
    """{arm: the column of its images}: its name, or one that no arm can have where another column is called so."""
    return {arm: f"image.{arm}" if arm in _SHARED else arm for arm in arms}


def pair_features(arms: Sequence[str]) -> Features:
    """Seed and prompt of the pair, the image of every arm, and the number of the pair."""
    columns = image_columns(arms).values()
    return Features(
        {
            "seed": Value("int64"),
            "prompt": Value("string"),
            **{column: Image() for column in columns},
            "pair_id": Value("int64"),
        }
    )


def write_pairs(folder: Path, arms: Sequence[str], baseline: str, sets: Path, most_bytes: int) -> int:
    """Write the first pairs of the baseline with every arm's image to `folder`/FILE; returns how many.

    They are all pairs where their images have at most about `most_bytes`, judged by the baseline's. An image that an
    arm lacks is null. `sets` are the image sets. Raises InputError for a set that is missing or damaged.
    """
    shared = _first_pairs(sets / baseline, len(arms), most_bytes)
    pairs = shared.column("pair_id").to_pylist()
    images = {arm: images_of(sets / arm, pairs) for arm in arms}
    schema = pair_features(arms).arrow_schema
    columns: dict[str, Any] = {name: shared.column(name) for name in _SHARED}
    for arm, column in image_columns(arms).items():
        cells = [images[arm].get(pair) for pair in pairs]
        columns[column] = pa.array(
            [None if cell is None else {"bytes": cell, "path": None} for cell in cells], schema.field(column).type
        )
    sizes = [sum(len(images[arm].get(pair, b"")) for arm in arms) for pair in pairs]
    path = folder / FILE
    path.parent.mkdir(parents=True)
    with pq.ParquetWriter(path, schema, write_page_index=True) as writer:
        for group in viewer_groups(sizes):
            rows = slice(group.start, group.stop)
            parts = [columns[name][rows] for name in schema.names]
            writer.write_table(pa.Table.from_arrays(parts, schema=schema))
    return len(pairs)


def check_pairs(folder: Path, arms: Sequence[str], sets: Path) -> None:
    """Load the configuration with `datasets` and compare every image's bytes with those of the sets.

    Raises InputError that names the first image that differs.
    """
    stream = load_dataset(str(folder), configuration_name(arms), split="train", streaming=True)
    columns = image_columns(arms)
    for column in columns.values():
        stream = stream.cast_column(column, Image(decode=False))
    rows = (row for row in stream)
    # To its end, and closed: a stream left half-read when the process ends can abort it in Arrow's threads.
    with closing(rows):
        written = {
            row["pair_id"]: {arm: _digest(row[column] and row[column]["bytes"]) for arm, column in columns.items()}
            for row in rows
        }
    for arm in arms:
        known = images_of(sets / arm, list(written))
        for pair, digests in written.items():
            if digests[arm] != _digest(known.get(pair)):
                raise InputError(
                    f"{folder / FILE} does not read back: the image of pair {pair} and arm '{arm}' is changed; "
                    "look at the disk, then run `dvc repro dataset`"
                )


def _first_pairs(folder: Path, arms: int, most_bytes: int) -> pa.Table:
    """Columns `_SHARED` of the first pairs of a set, `arms` images of which have about `most_bytes`; at least one."""
    found: list[pa.Table] = []
    left = most_bytes
    for path in shard_paths(folder):
        table = read_table(path, [*_SHARED, "image"])
        sizes = pc.multiply(pc.binary_length(pc.struct_field(table.column("image"), "bytes")), arms).to_pylist()
        fitting = sum(size <= left for size in accumulate(sizes))
        found.append(table.select(_SHARED).slice(0, fitting if found else max(1, fitting)))
        left -= sum(sizes)
        if left <= 0:
            break
    return pa.concat_tables(found)


def images_of(folder: Path, wanted: Sequence[int]) -> dict[int, bytes]:
    """{pair: bytes of its image} of those wanted pairs that a set has; reads shard by shard until it has them all."""
    found: dict[int, bytes] = {}
    pairs = pa.array(wanted, pa.int64())
    for path in shard_paths(folder):
        if len(found) == len(wanted):
            break
        table = read_table(path, ["pair_id", "image"])
        table = table.filter(pc.is_in(table.column("pair_id"), pairs))
        found |= {
            pair.as_py(): image["bytes"].as_py()
            for pair, image in zip(table.column("pair_id"), table.column("image"), strict=True)
        }
    return found


def _digest(content: bytes | None) -> str | None:
    return None if content is None else hashlib.sha256(content).hexdigest()
