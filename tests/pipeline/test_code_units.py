"""Code counts by what it does: comments and docstrings change no digest, and every stage names what is behind it."""

import json
from pathlib import Path

import pytest
import yaml
from arrows import file_arrows
from repository_copy import ROOT

from pipeline.code_units import code_digest, unit_digests, units, write_units

MODULE = '''"""What the module holds."""

SCALE = 2.0


def guided(main, reference):
    """The guided prediction."""
    return reference + SCALE * (main - reference)


class Walk:
    """A walk."""

    empty = None
'''


def digest(tmp_path: Path, text: str) -> str:
    path = tmp_path / "module.py"
    path.write_text(text)
    return code_digest(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""What the module holds."""', '"""Said in other words."""'),
        ('"""What the module holds."""\n', ""),
        ('    """The guided prediction."""\n', ""),
        ('    """A walk."""\n', '    """Another."""\n'),
        ("SCALE = 2.0\n", "# why 2\nSCALE = 2.0  # 1 is none\n"),
        ("(main - reference)", "(\n        main - reference\n    )"),
    ],
)
def test_words_and_layout_change_no_digest(tmp_path, old, new):
    assert old in MODULE
    assert digest(tmp_path, MODULE.replace(old, new)) == digest(tmp_path, MODULE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("2.0", "2"),
        ("2.0", "3.0"),
        ("main - reference", "main + reference"),
        ("main - reference", "reference - main"),
        ("def guided(main", "def guided(other, main"),
        ("empty = None", "empty = 0"),
        ("empty = None", 'empty = "None"'),
        ("empty = None", "empty: float = None"),
        ("return reference", "reference"),
    ],
)
def test_a_changed_line_changes_the_digest(tmp_path, old, new):
    assert old in MODULE
    assert digest(tmp_path, MODULE.replace(old, new, 1)) != digest(tmp_path, MODULE)


def test_a_text_that_is_no_docstring_counts(tmp_path):
    assert digest(tmp_path, 'x = "a"\n') != digest(tmp_path, 'x = "b"\n')
    assert digest(tmp_path, 'f"""a"""\n') != digest(tmp_path, 'f"""b"""\n')


def test_every_file_of_the_three_packages_is_in_one_unit():
    found = [path for paths in units().values() for path in paths]
    assert len(found) == len(set(found)) > 150
    assert {ROOT / "pipeline/guidance/algebra.py", ROOT / "eval/report/templates/page.css"} <= set(found)
    assert set(unit_digests("pipeline/sampling")) >= {"pipeline/sampling/sampler.py"}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("pipeline/generate.py", "pipeline/guidance/algebra.py", "eval/distances/vendi.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(MODULE)
    (tmp_path / "labeling").mkdir()
    return tmp_path


def test_what_changed_is_named(tree):
    def write():
        unit_digests.cache_clear()
        return write_units(tree / "code", tree)

    assert write() == [], "nothing was known before"
    assert {path.name for path in (tree / "code").iterdir()} == {
        "pipeline.json",
        "pipeline.guidance.json",
        "eval.distances.json",
    }
    assert write() == []
    before = {path.name: path.read_bytes() for path in (tree / "code").iterdir()}
    (tree / "pipeline/guidance/algebra.py").write_text(MODULE.replace("2.0", "3.0"))
    (tree / "pipeline/guidance/new.py").write_text("")
    (tree / "eval/distances/vendi.py").unlink()
    (tree / "pipeline/generate.py").write_text(MODULE + "# a comment\n")
    assert write() == ["eval/distances/vendi.py", "pipeline/guidance/algebra.py", "pipeline/guidance/new.py"]
    after = {path.name: path.read_bytes() for path in (tree / "code").iterdir()}
    assert set(after) == {"pipeline.json", "pipeline.guidance.json"}
    assert after["pipeline.json"] == before["pipeline.json"]


STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
RUN = {
    name: stage.get("do", stage)["cmd"].split()[2]
    for name, stage in STAGES.items()
    if stage.get("do", stage)["cmd"].startswith("sh pipeline/stage.sh") and not stage.get("always_changed")
}
# Units whose effect on a result is a value that DVC or a fingerprint sees, or none: settings, paths, checksums, costs,
# who does the work, what is refused before it.
BY_VALUE = {
    *("pipeline", "pipeline/study", "pipeline/storage", "pipeline/execution", "pipeline/cost"),
    "pipeline/compatibility",
}


def units_behind(module: str) -> set[str]:
    """The units that a module reaches by imports, not through those of BY_VALUE."""
    arrows = file_arrows(ROOT)
    start = module if module in arrows and (ROOT / f"{module.replace('.', '/')}.py").exists() else f"{module}.__main__"
    waiting, seen = {start}, set[str]()
    found = set()
    while waiting:
        name = waiting.pop()
        seen.add(name)
        unit = "/".join(name.split(".")[:-1][:2])
        if name == start or unit not in BY_VALUE:
            found.add(unit)
            waiting |= arrows[name] - seen
    return found - BY_VALUE


@pytest.mark.parametrize("name", RUN)
def test_a_stage_depends_on_every_unit_behind_it(name):
    named = {
        Path(dependency).stem.replace(".", "/")
        for dependency in STAGES[name]["deps"]
        if dependency.startswith("data/code/")
    }
    lacking = units_behind(RUN[name]) - named
    assert not lacking, f"{name} in dvc.yaml lacks {sorted(lacking)}"
    assert named <= set(units()), "a unit that is not there"


def test_digests_are_written_as_dvc_names_them(tmp_path):
    write_units(tmp_path)
    assert json.loads((tmp_path / "eval.report.json").read_text()) == unit_digests("eval/report")
