"""Imports run one way: no circles between files or packages, and nobody reads what comes after them.

Imports inside functions and under TYPE_CHECKING count. A package is a folder below pipeline/, eval/, labeling/ or
models/; each file that lies directly in one of these is a package of its own.
"""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from repository_copy import ROOT

TOP = ("pipeline", "eval", "labeling", "models")
# Only what ends the flow shows labels.
ENDS = {"pipeline.tracking", "pipeline.publishing"}

Arrows = dict[str, set[str]]


def modules_of(root: Path) -> dict[str, Path]:
    found = {}
    for path in (path for top in TOP for path in (root / top).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def file_arrows(root: Path) -> Arrows:
    """Every module of ours, and the modules of ours that it imports."""
    modules = modules_of(root)
    return {name: imported(path, modules) - {name} for name, path in modules.items()}


def imported(path: Path, modules: dict[str, Path]) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports relatively"
            # `from package import module` names a module; `from module import function` does not.
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    found = {name for name in found if name in modules}
    # `from package import module` also names the package, which is empty.
    return {name for name in found if not any(other.startswith(f"{name}.") for other in found)}


def package_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


def package_arrows(files: Arrows) -> Arrows:
    packages: Arrows = {package_of(module): set() for module in files}
    for module, others in files.items():
        packages[package_of(module)] |= {package_of(other) for other in others} - {package_of(module)}
    return packages


def circle(arrows: Arrows) -> list[str]:
    """One circle, from its first member round to it again; empty where there is none."""
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


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
