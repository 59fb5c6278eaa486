"""What the report reads is checked: what is missing, damaged or of another study is named with the way out."""

import json
from pathlib import Path
from typing import Any

import pytest
from report_numbers import comparison, interval
from report_study import SCORE_FEATURES, Inputs, study

from pipeline.errors import InputError
from pipeline.generation.shard_files import SET_FEATURES
from pipeline.results.comparison import load_comparison
from pipeline.storage.shards import write_shard


@pytest.mark.parametrize(
    "missing",
    [
        "metrics/compare.json",
        "data/sets/cfg_3",
        "data/scores/cfg_3.parquet",
        "data/trace/cfg_3",
        "data/features/cfg_3",
        "data/sample/tasks.parquet",
        "metrics/detail/unguided.json",
    ],
)
def test_missing_input_is_named_with_the_command(own_inputs: Inputs, tmp_path: Path, missing: str) -> None:
    path = tmp_path / missing
    for file in [*path.glob("*")] if path.is_dir() else [path]:
        file.unlink()
    with pytest.raises(InputError, match="dvc repro") as error:
        own_inputs.report()
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"study": "other"}, "study other, the study has smoke"),
        ({"arms": comparison()["arms"][:2]}, "arms cfg_3, unguided, the study has"),
        ({"baseline": "cfg_3"}, "against_baseline must be null"),
        ({"reference_n": None}, "reference_n"),
        ({"floor": {"fd": interval(float("nan"), 0, 0)}}, "floor.fd.value"),
        ({"arms": [{**comparison()["arms"][0], "arm": "../../etc"}]}, "arms.0.arm"),
    ],
)
def test_comparison_of_another_study_or_shape_is_refused(tmp_path: Path, change: Any, expected: str) -> None:
    path = tmp_path / "compare.json"
    path.write_text(json.dumps({**comparison(), **change}))
    with pytest.raises(InputError, match="dvc repro") as error:
        load_comparison(path, study())
    assert expected in str(error.value)
    assert str(path) in str(error.value)


def test_unreadable_comparison_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "compare.json"
    path.write_text("{")
    with pytest.raises(InputError, match="dvc repro"):
        load_comparison(path, study())


def test_image_without_score_features_or_bytes_is_refused(own_inputs: Inputs) -> None:
    scores = own_inputs.scores / "cfg_3.parquet"
    whole = scores.read_bytes()
    columns: dict[str, list[Any]] = {name: [] for name in SCORE_FEATURES}
    write_shard(scores, columns, SCORE_FEATURES, "mark")
    with pytest.raises(InputError, match="has no row for 'cfg_3-"):
        own_inputs.report()
    scores.write_bytes(whole)
    row = {
        "image_id": ["unguided-000000"],
        "image": [{"bytes": b"no image", "path": None}],
        "arm": ["unguided"],
        "pair_id": [0],
        "prompt": [""],
        "negative_prompt": [""],
        "seed": [100],
    }
    write_shard(own_inputs.sets / "unguided/part-00000.parquet", row, SET_FEATURES, "mark")
    with pytest.raises(InputError, match="unreadable image"):
        own_inputs.report()
    row["image_id"] = ["another"]
    write_shard(own_inputs.sets / "unguided/part-00000.parquet", row, SET_FEATURES, "mark")
    with pytest.raises(InputError, match="has no row for 'another'"):
        own_inputs.report()
