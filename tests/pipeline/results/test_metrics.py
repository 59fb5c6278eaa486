"""One table of metrics: what is measured and shown has a row, and no other file says which end of a number is good."""

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import get_args

import pytest
import yaml
from repository_copy import ROOT
from small_study import SPACES, comparison

from eval.comparison.plot_tables import plot_tables
from eval.report.tables import further_columns
from eval.scorers.kinds import KINDS
from eval.scorers.set_metrics import EVERYWHERE, OF_CLIP, PRIMARY_ALONE
from pipeline.results.comparison import MATCHED, POINT, Comparison
from pipeline.results.metrics import SHIFT, TABLE, Place, best_of, metric, of_level, of_space, shown_in
from pipeline.tracking.numbers import arm_numbers

NAMED = {row.name: row for row in TABLE}
SOURCES = [path for folder in ("pipeline", "eval", "labeling") for path in sorted((ROOT / folder).rglob("*.py"))]


def test_names_and_columns_are_there_once() -> None:
    assert len(NAMED) == len(TABLE)
    columns = [row.column for row in of_level("image")]
    assert len(columns) == len(set(columns))
    assert all(row.column == "" for row in TABLE if row.level != "image")


@pytest.mark.parametrize("row", [row for row in TABLE if row.level in ("image", "set")], ids=lambda row: row.name)
def test_what_is_measured_names_a_function_that_exists(row) -> None:
    module, name = row.compute.split(":")
    assert callable(getattr(import_module(module), name))


def test_a_metric_in_every_space_and_one_of_the_primary_space_are_measured_once() -> None:
    measured = [*EVERYWHERE, *OF_CLIP, *PRIMARY_ALONE]
    assert len({row.name for row in measured}) == len(measured)
    assert {row.name for row in of_level("set")} - {row.name for row in measured} == {"fid_torchmetrics"}


def test_scores_that_a_study_may_ask_for_have_a_row() -> None:
    choices = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "conf/scorers").glob("*.yaml"))]
    asked = {name for one in choices for name in [*one.get("scorers", {}), *(["lpips"] if "lpips" in one else [])]}
    assert {row.name for row in TABLE if row.optional} == asked
    assert [row.name for row in of_level("image") if row.name.startswith("kind_")] == [f"kind_{kind}" for kind in KINDS]


def test_every_place_shows_something_and_the_frontier_holds_what_strength_is_measured_by() -> None:
    assert all(shown_in(place) for place in get_args(Place))
    assert POINT == ("fd", "precision", "recall", "clip_score", "aesthetic")
    assert MATCHED == ("fd", "precision", "recall", "aesthetic", "clip_score", "shift_fd")


def test_every_number_of_an_arm_in_mlflow_has_a_row() -> None:
    compared = Comparison.model_validate(comparison())
    names = {name for arm in compared.arms for name in arm_numbers(arm)}
    # Paired differences, arm minus baseline, are named as what they are differences of.
    differences = {f"{SHIFT}{row.name}" for row in of_level("image")} | {f"{SHIFT}reference_fd", f"{SHIFT}recall"}
    in_primary = {re.sub(f"^({'|'.join(SPACES)})_", "", name) for name in names}
    assert in_primary - NAMED.keys() - differences == set()
    assert {f"{space}_shift_fd" for space in SPACES} <= names


def test_a_score_in_another_space_is_known_by_both_its_names() -> None:
    assert of_space("pyramid_fd") == ("pyramid", metric("fd"))
    assert of_space("clip_vit_l_14_vendi") == ("clip_vit_l_14", metric("vendi"))
    assert of_space("fd") is of_space("pyramid_sharpness") is None


def test_the_best_of_values_lies_at_the_good_end() -> None:
    assert best_of([1, 3, 2], "higher") == 3
    assert best_of([1, 3, 2], "lower") == 1
    assert best_of([1, 3, 2], None) is None


def _ends(path: Path) -> Iterator[ast.Constant]:
    """The texts `higher` and `lower` of a module, save where something is compared with them."""
    tree = ast.parse(path.read_text("utf-8"))
    compared = {id(part) for node in ast.walk(tree) if isinstance(node, ast.Compare) for part in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node.value in ("higher", "lower") and id(node) not in compared:
            yield node


def test_which_end_is_good_is_written_in_the_table_alone() -> None:
    saying = {path.relative_to(ROOT).as_posix() for path in SOURCES if list(_ends(path))}
    assert saying == {"pipeline/results/metrics.py"}
    templates = sorted((ROOT / "eval/report/templates").rglob("*.j2"))
    assert not [
        path for path in templates if re.search(r"(higher|lower) is better|(right|left) is better", path.read_text())
    ]


def test_documentation_says_the_same() -> None:
    rows: dict[str, str] = {}
    for line in (ROOT / "docs/metrics.md").read_text("utf-8").splitlines():
        if line.startswith("| `"):
            # The first table that has it; `fd` is also in that of the shift from the baseline.
            rows = dict.fromkeys(re.findall(r"`([a-z0-9_*.]+)`", line.split("|")[1]), line) | rows
    for row in of_level("set"):
        name = f"inception_{row.name}" if row.name == "fid_torchmetrics" else row.name
        said = re.search(r", (higher|lower) \|", rows[name])
        assert (said and said[1]) == row.better, row.name
    for row in of_level("image"):
        assert ("kind_*" if row.name.startswith("kind_") else row.column) in rows, row.name


def test_a_metric_is_shown_by_its_row_alone() -> None:
    """MIND is named by its row and its module and by nothing else of the program."""
    naming = {
        path.relative_to(ROOT).as_posix()
        for path in SOURCES
        if re.search(r"\bmind\b", re.sub(r"\bin mind\b", "", path.read_text("utf-8")))
    }
    assert naming == {"eval/distances/mind.py", "pipeline/results/metrics.py"}
    scores = ["fd", "mind", "clip_score", "clip_mind", "pyramid_mind"]
    assert [column.label for column in further_columns(scores, "clip")] == ["MIND", "pyramid: MIND"]
    assert [column.better for column in further_columns(scores, "clip")] == ["lower", "lower"]
    content = comparison()
    for arm in content["arms"]:
        arm["scores"]["mind"] = arm["scores"]["fd"]
    compared = Comparison.model_validate(content)
    assert "mind" in arm_numbers(compared.arms[0])
    assert "mind" in plot_tables(compared)["arms"][0]
    assert metric("mind") in shown_in("card")
