"""Imports run one way: no circles between files or packages, and nobody reads what comes after them.

Imports inside functions and under TYPE_CHECKING count. A package is a folder below pipeline/, eval/, labeling/ or
models/; each file that lies directly in one of these is a package of its own.
"""

from pathlib import Path

import pytest
from arrows import Arrows, circle, file_arrows, package_arrows
from repository_copy import ROOT

# Only what ends the flow shows labels.
ENDS = {"pipeline.tracking", "pipeline.publishing"}


@pytest.fixture(scope="module")
def files() -> Arrows:
    return file_arrows(ROOT)


def test_no_files_import_each_other_in_a_circle(files: Arrows) -> None:
    assert len(files) > 150
    assert circle(files) == []


def test_no_packages_import_each_other_in_a_circle(files: Arrows) -> None:
    assert circle(package_arrows(files)) == []


def test_the_pipeline_reads_nothing_of_what_follows_it_but_to_track_and_publish(files: Arrows) -> None:
    for package, others in package_arrows(files).items():
        if package.startswith("pipeline"):
            later = {other for other in others if not other.startswith("pipeline")}
            assert later <= ({"labeling.records"} if package in ENDS else set()), package


def test_the_evaluation_reads_labels_only_for_its_report(files: Arrows) -> None:
    for package, others in package_arrows(files).items():
        if package.startswith("eval"):
            later = {other for other in others if other.startswith(("labeling", "models"))}
            assert later <= ({"labeling.records"} if package == "eval.report" else set()), package


def test_labels_read_of_the_evaluation_its_statistics_alone(files: Arrows) -> None:
    for package, others in package_arrows(files).items():
        if package.startswith("labeling"):
            assert {other for other in others if other.startswith("eval")} <= {"eval.statistics"}, package


PLANTED = {
    "pipeline/study/arm.py": "from pipeline.guidance.scale import Scale\nfrom pipeline.settings import Settings\n",
    "pipeline/guidance/scale.py": "import pipeline.settings\n",
    "pipeline/guidance/algebra.py": "def guide():\n    from pipeline import settings\n",
    "pipeline/settings.py": "",
}


def planted(root: Path, **changed: str) -> Arrows:
    for name, content in (PLANTED | {name.replace("__", "/") + ".py": text for name, text in changed.items()}).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return file_arrows(root)


def test_a_tree_without_circles_has_none(tmp_path: Path) -> None:
    files = planted(tmp_path)
    assert files["pipeline.guidance.algebra"] == {"pipeline.settings"}
    assert circle(files) == circle(package_arrows(files)) == []


@pytest.mark.parametrize(
    "line",
    [
        "from pipeline.study.arm import Arm",
        "import pipeline.study.arm",
        "from pipeline.study import arm",
        "def scale():\n    from pipeline.study.arm import Arm",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pipeline.study.arm import Arm",
    ],
)
def test_a_planted_circle_of_files_is_found(tmp_path: Path, line: str) -> None:
    assert set(circle(planted(tmp_path, pipeline__guidance__scale=line))) == {
        "pipeline.guidance.scale",
        "pipeline.study.arm",
    }


def test_a_planted_circle_of_packages_is_found_where_no_files_form_one(tmp_path: Path) -> None:
    files = planted(tmp_path, pipeline__guidance__algebra="from pipeline.study.arm import Arm")
    assert circle(files) == []
    assert set(circle(package_arrows(files))) == {"pipeline.guidance", "pipeline.study"}
