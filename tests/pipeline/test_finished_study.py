"""A finished study in a notebook: scores as a table, images by arm and seed, compared numbers with their intervals."""

import ast
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image
from repository_copy import ROOT
from small_study import ARMS, HOSTILE, IMAGES, PARAMS, SCORES, SHIFTS, comparison, image, write_comparison, write_study

from pipeline.errors import InputError
from pipeline.finished_study import SIDE, FinishedStudy
from pipeline.storage.contact_sheet import GAP

NOTEBOOK = ROOT / "docs/notebook.ipynb"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("study")
    write_study(found)
    return found


@pytest.fixture(scope="module")
def study(folder: Path) -> FinishedStudy:
    return FinishedStudy.load(folder)


def test_a_study_is_found_from_a_folder_within_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder / "data/sets")
    found = FinishedStudy.load()
    assert (found.root, found.arms, found.baseline) == (folder, list(ARMS), "unguided")
    assert found.settings.name == PARAMS["name"]


def test_scores_have_one_row_per_image_with_what_it_was_generated_from(study: FinishedStudy) -> None:
    scores = study.scores()
    assert len(scores) == len(ARMS) * IMAGES
    assert scores.columns[:6].tolist() == ["arm", "image_id", "pair_id", "seed", "prompt", "negative_prompt"]
    assert scores["arm"].cat.categories.tolist() == list(ARMS)
    row = scores[(scores["arm"] == "negative") & (scores["seed"] == 6)].iloc[0]
    assert (row["image_id"], row["pair_id"], row["negative_prompt"]) == ("negative-000006", 6, HOSTILE)
    assert (row["kind_legit_human"], row["kind_malformed_human"], row["inside_reference"]) == (0.1, 0.7, True)
    assert study.scores("cfg")["arm"].unique().tolist() == ["cfg"]


def test_an_image_is_that_of_its_arm_and_seed(study: FinishedStudy) -> None:
    for number, arm in enumerate(ARMS):
        assert study.images(arm, seed=9).tobytes() == image(number, 9).tobytes()


def test_a_grid_has_a_row_per_seed_and_a_column_per_arm(study: FinishedStudy) -> None:
    grid = study.grid([3, 9], arms=["negative", "cfg"])
    assert grid.width == 2 * (SIDE + GAP) + GAP
    assert grid.getpixel((GAP + SIDE // 2, grid.height - GAP - SIDE // 2)) == (200, 90, 128)
    assert study.grid([3]).width == len(ARMS) * (SIDE + GAP) + GAP


def test_numbers_are_those_of_the_comparison_with_their_intervals(study: FinishedStudy) -> None:
    numbers = study.numbers()
    expected = comparison()["arms"][1]
    for of, name, interval in (
        ("arm", "recall", expected["scores"]["recall"]),
        ("shift", "fd", expected["against_baseline"]["fd"]),
        ("shift", "auc", expected["against_baseline"]["two_sample"]["auc"]),
    ):
        (row,) = numbers[(numbers.arm == "cfg") & (numbers.of == of) & (numbers.metric == name)].to_dict("records")
        assert {key: row[key] for key in ("value", "low", "high", "n")} == interval
    assert set(numbers[numbers.of == "arm"].metric) == set(SCORES)
    assert set(SHIFTS) <= set(numbers[numbers.of == "shift"].metric)
    assert "unguided" not in numbers[numbers.of == "shift"].arm.tolist()


def test_what_is_not_there_is_named(study: FinishedStudy, tmp_path: Path) -> None:
    for ask, message in (
        (lambda: study.images("cgf", 1), "arm 'cgf' is unknown; known arms: "),
        (lambda: study.scores("cgf"), "arm 'cgf' is unknown"),
        (lambda: study.images("cfg", 99), "arm 'cfg' has no image of seed 99; its seeds are 0 to 15"),
        (lambda: study.grid([]), "a grid needs at least one seed; there are 0 to 15"),
        (lambda: FinishedStudy.load(tmp_path), "have no params.yaml"),
    ):
        with pytest.raises(InputError, match=message):
            ask()


def test_scores_of_other_images_and_numbers_of_another_study_are_refused(tmp_path: Path) -> None:
    write_study(tmp_path)
    (tmp_path / "data/sets/cfg/part-00001.parquet").unlink()
    with pytest.raises(InputError, match=r"cfg\.parquet has scores of other images .*dvc repro measure"):
        FinishedStudy.load(tmp_path).scores("cfg")
    write_comparison(tmp_path, {**comparison(), "study": "other"})
    with pytest.raises(InputError, match="has study other, the study has small"):
        FinishedStudy.load(tmp_path)


def executed(path: Path) -> list[Any]:
    """What the cells of a notebook show, each the value of its last line, as IPython does."""
    names: dict[str, Any] = {}
    shown = []
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        if cell["cell_type"] != "code":
            continue
        tree = ast.parse("".join(cell["source"]))
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, path.name, "exec"), names)  # noqa: S102 (the project's own notebook)
        if isinstance(last, ast.Expr):
            shown.append(eval(compile(ast.Expression(last.value), path.name, "eval"), names))  # noqa: S307
    return shown


def test_the_notebook_runs_and_shows_scores_a_grid_and_numbers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    shown = executed(NOTEBOOK)
    assert shown[0] == ("small", list(ARMS), "unguided")
    tables = [one for one in shown if isinstance(one, pd.DataFrame)]
    grid, single = (one for one in shown if isinstance(one, Image.Image))
    assert len(shown) == 1 + len(tables) + 2
    assert all(len(table) for table in tables)
    assert grid.width == len(ARMS) * (SIDE + GAP) + GAP
    assert single.size == (64, 64)


def test_the_notebook_is_kept_without_outputs() -> None:
    cells = [cell for cell in json.loads(NOTEBOOK.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
