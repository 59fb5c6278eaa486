"""The configuration `pairs`: every arm's image of a seed in one row, the same bytes as in the arms' configurations."""

import copy
import hashlib
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import small_study
from datasets import Image, load_dataset
from small_study import ARMS, IMAGES, PARAMS, write_study

from labeling.records import SAMPLED_TASKS, write_tasks
from pipeline.errors import InputError
from pipeline.layout import DATASET
from pipeline.publishing import dataset, viewer_groups
from pipeline.publishing.dataset import make_dataset
from pipeline.publishing.pairs import FILE, MOST_BYTES, check_pairs, pair_features, write_pairs
from pipeline.storage.shards import read_set
from pipeline.study.study import parse_study


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_study(tmp_path)
    write_tasks(tmp_path / SAMPLED_TASKS, [])
    return tmp_path


def digests(root: Path, arm: str) -> list[str]:
    return [hashlib.sha256(cell["bytes"].as_py()).hexdigest() for cell in read_set(root / "data/sets" / arm)["image"]]


def loaded(folder: Path, name: str = "pairs") -> Any:
    return load_dataset(str(folder), name, split="train", cache_dir=str(folder.parent / "cache"))


def test_a_row_has_the_images_of_all_arms_as_they_were_generated(root: Path) -> None:
    made = make_dataset(parse_study(copy.deepcopy(PARAMS), "test"), root)
    found = loaded(root / DATASET)
    assert made.pairs == len(found) == IMAGES
    assert found.column_names == ["seed", "prompt", *ARMS, "pair_id"]
    assert found.features == pair_features(ARMS)
    assert found[5]["cfg"].size == (64, 64)
    assert (found[5]["seed"], found[5]["prompt"], found[5]["pair_id"]) == (5, "1person, solo", 5)
    for arm in ARMS:
        images = found.cast_column(arm, Image(decode=False))[arm]
        assert [hashlib.sha256(image["bytes"]).hexdigest() for image in images] == digests(root, arm)


def test_more_bytes_than_allowed_are_not_copied_and_the_card_says_how_many_are(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = sum(len(cell["bytes"].as_py()) for cell in read_set(root / "data/sets/unguided")["image"])
    monkeypatch.setattr(dataset, "MOST_BYTES", len(ARMS) * size * 10 // IMAGES)
    made = make_dataset(parse_study(copy.deepcopy(PARAMS), "test"), root)
    assert 8 < made.pairs < 12, "the second shard of the baseline is cut"
    assert loaded(root / DATASET)["pair_id"] == list(range(made.pairs))
    assert f"the first {made.pairs} of {IMAGES} seeds" in (root / DATASET / "README.md").read_text()


def test_one_pair_is_there_however_large_it_is(root: Path, tmp_path: Path) -> None:
    assert write_pairs(tmp_path / "one", ARMS, "unguided", root / "data/sets", most_bytes=1) == 1


def test_an_image_that_an_arm_lacks_is_empty(root: Path, tmp_path: Path) -> None:
    (root / "data/sets/cfg/part-00001.parquet").unlink()
    assert write_pairs(tmp_path / "built", ARMS, "unguided", root / "data/sets", MOST_BYTES) == IMAGES
    table = pq.read_table(tmp_path / "built" / FILE)
    assert table["cfg"].null_count == 8
    assert table["negative"].null_count == 0


def test_rows_are_in_groups_that_the_viewer_reads(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(viewer_groups, "GROUP_ROWS", 7)
    write_pairs(tmp_path / "built", ARMS, "unguided", root / "data/sets", MOST_BYTES)
    metadata = pq.read_metadata(tmp_path / "built" / FILE)
    assert [metadata.row_group(k).num_rows for k in range(metadata.num_row_groups)] == [7, 7, 2]


def test_an_image_that_does_not_read_back_is_named(root: Path) -> None:
    study = parse_study(copy.deepcopy(PARAMS), "test")
    make_dataset(study, root)
    # The same images under other arms' names.
    shutil.copy(root / "data/sets/cfg/part-00001.parquet", root / "data/sets/negative/part-00001.parquet")
    with pytest.raises(InputError, match="the image of pair 8 and arm 'negative' is changed"):
        check_pairs(root / DATASET, ARMS, root / "data/sets")


def test_arms_called_as_the_columns_and_the_configuration_are_told_apart_from_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {"cfg": "seed", "negative": "pairs"}
    arms = {names.get(name, name): arm for name, arm in PARAMS["arms"].items()}
    monkeypatch.setattr(small_study, "ARMS", tuple(arms))
    monkeypatch.setattr(small_study, "PARAMS", {**PARAMS, "arms": arms})
    write_study(tmp_path)
    write_tasks(tmp_path / SAMPLED_TASKS, [])
    make_dataset(parse_study(copy.deepcopy({**PARAMS, "arms": arms}), "test"), tmp_path)
    found = loaded(tmp_path / DATASET, "pairs-of-arms")
    assert found.column_names == ["seed", "prompt", "unguided", "image.seed", "pairs", "pair_id"]
    assert loaded(tmp_path / DATASET, "pairs").num_rows == IMAGES, "the arm"
