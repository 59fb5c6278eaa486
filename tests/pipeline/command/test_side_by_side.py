"""Two studies side by side: their arms' headline numbers with intervals, and why they may not be comparable."""

import copy
import json
from pathlib import Path

import pytest
from small_study import URI, comparison, write_study

from pipeline.command.side_by_side import differences, load_results, table
from pipeline.errors import InputError
from pipeline.results.comparison import Comparison
from pipeline.study.study import load_study
from pipeline.tracking.track import track


def test_each_number_has_a_row_per_arm_and_a_column_per_study() -> None:
    first, second = comparison(0), comparison(1)
    second["arms"] = [arm for arm in second["arms"] if arm["arm"] != "negative"]
    first["arms"][1]["against_baseline"]["fd"] = {"value": 0.5, "low": 0.25, "high": 12.5, "n": 16}
    text = table([("one", Comparison.model_validate(first)), ("two", Comparison.model_validate(second))])
    blocks = {block.splitlines()[0]: block.splitlines() for block in text.split("\n\n")}
    shift = blocks["shift from unguided, in efficientnet_lite0_pc4"]
    assert shift[1].split() == ["one", "two"]
    assert shift[2].split() == ["unguided", "-", "-"], "the baseline lies nowhere from itself"
    assert shift[3].startswith("  cfg       0.5 (0.2 to 12.5)")
    assert shift[4].endswith("no such arm")
    assert len(blocks) == 7


def test_what_makes_numbers_incomparable_is_named() -> None:
    one = comparison()
    other = copy.deepcopy(one)
    assert differences(Comparison.model_validate(one), Comparison.model_validate(other)) == []
    other["reference_n"] = 64
    other["provenance"]["main"] = "another"
    assert differences(Comparison.model_validate(one), Comparison.model_validate(other)) == [
        "number of real images: 32 and 64",
        "main network: abc and another",
    ]


def test_results_are_a_folder_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "metrics").mkdir()
    path = tmp_path / "metrics/compare.json"
    path.write_text(json.dumps(comparison()))
    monkeypatch.chdir(tmp_path)
    assert load_results(".").study == load_results(str(path)).study == load_results("metrics").study == "small"


def test_results_are_a_study_that_was_tracked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_study(tmp_path)
    with pytest.raises(InputError, match=r"'small' was not tracked: there is no mlflow\.db yet"):
        load_results("small")
    track(load_study(), Path(), URI)
    assert load_results("small") == load_results("small@1") == load_results(".")
    with pytest.raises(InputError, match="'small@7' was not tracked; tracked studies: small"):
        load_results("small@7")


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("no/where", "'no/where' is not a folder of a study, a compare.json or the name of a study"),
        ("empty", r"empty has no metrics/compare\.json"),
        ("wrong.json", r"wrong\.json: study: Field required"),
    ],
)
def test_what_has_no_results_is_refused(what: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "wrong.json").write_text("{}")
    with pytest.raises(InputError, match=said):
        load_results(what)
