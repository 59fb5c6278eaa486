"""Results of benchmarks are kept by name, and the documented table is that of the file."""

import json
from pathlib import Path

import pytest

from benchmarks import record as record_module
from benchmarks.__main__ import BENCHMARKS
from benchmarks.record import BEGIN, DOCUMENT, END, RESULTS, entry, least, record, table, versions


def test_the_documented_table_is_that_of_the_results():
    written = DOCUMENT.read_text("utf-8").split(BEGIN)[1].split(END)[0]
    assert written.strip() == table(json.loads(RESULTS.read_text("utf-8"))).strip()


def test_a_result_replaces_that_of_its_name_and_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(record_module, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(record_module, "DOCUMENT", tmp_path / "benchmarks.md")
    (tmp_path / "benchmarks.md").write_text(f"above\n{BEGIN}\n{END}\nbelow\n")
    record([entry("a", 1.0, 2.0, True, "peer"), entry("b", 1.0, None, None, "peer")])
    record([entry("a", 3.0, 2.0, False, "peer")])
    results = {result["name"]: result for result in json.loads((tmp_path / "results.json").read_text())}
    assert (results["a"]["value"], results["a"]["holds"], results["b"]["value"]) == (3.0, False, 1.0)
    document = (tmp_path / "benchmarks.md").read_text()
    assert document.startswith("above")
    assert document.endswith("below\n")
    assert "| `a` | 3.0 | 2.0 | **no** |" in document


def test_the_table_says_what_each_result_was_measured_with():
    old, new = entry("a", 1.0, None, None, "peer") | {"versions": "torch 1"}, entry("b", 1.0, None, None, "peer")
    assert table([old]).endswith("All measured with torch 1.\n")
    assert "`a` measured with torch 1." in table([old, new])
    assert f"`b` measured with {versions()}." in table([old, new])


def test_one_command_runs_all_benchmarks():
    programs = {path.stem for path in Path(record_module.__file__).parent.glob("*.py")}
    assert set(BENCHMARKS) == programs - {"__init__", "__main__", "record", "peak"}


def test_least_is_the_quickest_round_of_each_run():
    seconds = iter([0.0, 5.0, 5.0, 6.0, 10.0, 12.0, 12.0, 19.0])  # two rounds of two runs
    assert least(2, lambda: None, lambda: None, clock=lambda: next(seconds)) == pytest.approx([2.0, 1.0])
