"""docs/results.md: a part per study, each of the networks that are shipped, as its command writes it."""

import re
from pathlib import Path

import pytest
from repository_copy import ROOT

from docs.answers.studies import composed
from docs.kept_results import load_kept
from docs.results import PAGE, PARTS, command_of, written
from docs.written_block import marks, replaced
from pipeline.errors import InputError
from pipeline.preflight import study_digests


def part_of(page: str, name: str) -> str:
    begin, end = marks(command_of(name))
    return page.split(begin)[1].split(end)[0].strip("\n")


@pytest.mark.parametrize("name", PARTS)
def test_a_part_is_of_the_networks_that_are_shipped(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    digests = study_digests(composed("default"))
    line = part_of((ROOT / PAGE).read_text("utf-8"), name).splitlines()[-1]
    found = re.fullmatch(r"Weights: main (\w+), guide (\w+); reference set \w+\.", line)
    assert found is not None
    assert found.groups() == (digests["main"], digests["guide"])


@pytest.mark.parametrize("name", ["sweep", "alignment"])
def test_a_part_is_written_from_a_study_and_leaves_the_others(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    kept = composed("default")
    comparison, study = load_kept(kept), kept.model_copy(update={"name": name})
    probed = tuple(one for one in comparison.alignment if len(one.pairs) == 3)
    comparison = comparison.model_copy(update={"alignment": probed})
    block = written(name, comparison, study)
    for arm in comparison.alignment if name == "alignment" else comparison.arms:
        assert f"| {arm.arm} |" in block
    before = (ROOT / PAGE).read_text("utf-8")
    after = replaced(before, Path("results.md"), command_of(name), block)
    assert part_of(after, name) == block
    for other in set(PARTS) - {name}:
        assert part_of(after, other) == part_of(before, other)


def test_results_of_another_study_are_refused() -> None:
    study = composed("default")
    with pytest.raises(InputError, match=r"params\.yaml holds study 'default', not 'sweep'; name the folder"):
        written("sweep", load_kept(study, ROOT), study)
