"""Scores of others: joined by file name, or refused with the reason."""

import math
from pathlib import Path

import pandas as pd
import pytest

from pipeline.errors import InputError
from pipeline.external.joined_scores import joined_scores

FILES = ["x/1.png", "2.png", "3.png"]
KEY = "arms.a.from_folder.scores"


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_scores_are_joined_by_path_or_by_the_last_part_of_it(tmp_path: Path, suffix: str) -> None:
    table = pd.DataFrame({"file": ["1.png", "2.png", "other.png"], "pick": [0.5, 2.0, 9.0], "who": ["x", "y", "z"]})
    path = tmp_path / f"scores{suffix}"
    table.to_csv(path, index=False) if suffix == ".csv" else table.to_parquet(path)
    assert joined_scores(path, KEY, FILES) == [{"pick": 0.5}, {"pick": 2.0}, {}]


def test_a_number_that_is_none_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("file,a,b\nx\\1.png,1,\n2.png,inf,2\n")
    assert joined_scores(tmp_path / "s.csv", KEY, FILES) == [{"a": 1.0}, {"b": 2.0}, {}]
    assert math.isfinite(joined_scores(tmp_path / "s.csv", KEY, FILES)[1]["b"])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("name,a\n2.png,1\n", "has no column 'file', which names the image; it has name, a"),
        ("file,a\n2.png,good\n", "has no column of numbers beside 'file'; it has file, a"),
        ("file,a\n2.png,1\n2.png,2\n", "has two rows of 2.png; leave one"),
        ("file,a\n9.png,1\n", "names none of the images (its first is '9.png', the folder's 'x/1.png')"),
        ("", "is not a readable CSV or parquet file"),
        ("file," + ",".join(f"s{k}" for k in range(60)) + "\n2.png" + ",1" * 60 + "\n", "has 60 columns of numbers"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "scores.csv"
    path.write_text(content)
    with pytest.raises(InputError) as refused:
        joined_scores(path, KEY, FILES)
    assert str(refused.value).startswith(f"{KEY} {path} ")
    assert said in str(refused.value)


def test_a_table_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.csv is not a file; name a CSV or parquet file"):
        joined_scores(tmp_path / "none.csv", KEY, FILES)
