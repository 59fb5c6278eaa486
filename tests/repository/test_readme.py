"""Figures that commands write into pages: those of the committed run, and of the networks in the repository."""

import json
import re
from html import escape
from typing import Any

import pytest
from repository_copy import ROOT

from docs.kept_results import KEPT, kept, load_kept, rounded
from docs.prompt_figures import COMMAND as FIGURES
from docs.prompt_figures import PAGE, study_of
from docs.readme import ARMS, COMMAND, findings, written
from docs.sample_report import SAMPLE
from docs.written_block import marks
from pipeline.errors import InputError
from pipeline.preflight import study_digests
from pipeline.results.answer import answer
from pipeline.results.comparison import Comparison
from pipeline.study.study import Study, load_study


@pytest.fixture(scope="module")
def study() -> Study:
    return load_study(ROOT / "params.yaml")


@pytest.fixture
def content() -> dict[str, Any]:
    committed: dict[str, Any] = json.loads((ROOT / KEPT).read_text("utf-8"))
    return committed


def test_the_readme_says_what_the_committed_run_found(study: Study) -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    comparison = load_kept(study, ROOT)
    assert written(readme, findings(comparison, study)) == readme


def test_what_is_kept_has_fewer_digits_and_is_read_as_before(study: Study) -> None:
    assert rounded({"a": [123.456789, 0.000123456, 192, True]}) == {"a": [123.46, 0.00012346, 192, True]}
    comparison = load_kept(study, ROOT)
    assert kept(comparison) == (ROOT / KEPT).read_bytes(), "what has been rounded is rounded"
    with pytest.raises(InputError, match=r"params\.yaml holds study 'mine'"):
        kept(comparison.model_copy(update={"study": "mine"}))


def test_the_sample_report_answers_as_the_readme_does(study: Study) -> None:
    page = (ROOT / SAMPLE).read_text("utf-8")
    assert escape(answer(load_kept(study, ROOT)).lead) in page
    assert len(page) < 4e6, "small enough for git and for a look"


def test_other_numbers_are_other_findings(study: Study, content: dict[str, Any]) -> None:
    primary = content["spaces"][0]
    primary["floor"]["other_seeds"] |= {"value": 2.0, "low": 1.0, "high": 3.0}
    everywhere = re.compile(r"(\d+) of (\d+) guided arms do, in every space\.")
    before = everywhere.search(findings(Comparison.model_validate(content), study))
    assert before is not None
    for arm in content["arms"]:
        if arm["arm"] in ("negative", "autoguidance"):
            shift = {"value": 6.0 if arm["arm"] == "negative" else 0.06, "low": 0.05, "high": 7.0, "n": 192}
            for own in arm["against_baseline"]["spaces"].values():
                own["shift"] = shift
    for one in content["verdicts"]:
        for verdict in one["verdicts"]:
            if verdict["topic"] == "Shift" and one["arm"] == "cfg":
                verdict["spaces"][primary["name"]] = "undecided"
    block = findings(Comparison.model_validate(content), study)
    guided = len(content["arms"]) - 1
    assert before[2] == str(guided)
    assert f"{int(before[1]) - 1} of {guided} guided arms do, in every space." in block
    assert f"100 times as far as autoguidance at 1.5 in `{primary['name']}`" in block
    assert "shift from `unguided`: `negative` | 3.00 (0.03" in block


@pytest.mark.parametrize(("low", "high", "said"), [(-0.2, -0.1, "nearer to classifier-free guidance"),
                                                   (0.1, 0.2, "nearer to autoguidance"),
                                                   (-0.1, 0.1, "undecided")])  # fmt: skip
def test_which_way_the_negative_prompt_points_follows_from_the_interval(
    study: Study, content: dict[str, Any], low: float, high: float, said: str
) -> None:
    content["alignment"][0]["guide_over_empty"] |= {"low": low, "high": high}
    assert said in findings(Comparison.model_validate(content), study)


def test_a_concept_that_explains_no_more_than_any_other_shift_is_not_named(
    study: Study, content: dict[str, Any]
) -> None:
    for row in content["named"]["removed"]:
        row["variance"] = 0.99
    block = findings(Comparison.model_validate(content), study)
    assert block.count("No concept explains more of the shift of") == 2
    assert "low quality" not in block


def test_a_study_without_the_arms_of_the_readme_is_refused(study: Study, content: dict[str, Any]) -> None:
    content["arms"] = [arm for arm in content["arms"] if arm["arm"] not in ("negative", "cfg")]
    with pytest.raises(InputError, match=r"study 'default' has no arm cfg, negative; the README is about"):
        findings(Comparison.model_validate(content), study)
    assert set(ARMS) == {"cfg", "negative", "autoguidance"}


BEGIN, END = marks(COMMAND)


@pytest.mark.parametrize("readme", ["", f"{BEGIN}\n", f"{BEGIN}\na\n{END}\n{BEGIN}\nb\n{END}"])
def test_a_readme_without_its_place_for_findings_is_refused(readme: str) -> None:
    with pytest.raises(InputError, match=r"README\.md needs the comments"):
        written(readme, "x")


def test_the_figures_about_prompts_are_of_the_networks_in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    begin, end = marks(FIGURES)
    block = PAGE.read_text("utf-8").partition(begin)[2].partition(end)[0]
    digests = study_digests(study_of("plain_conditional"))
    assert f"networks {digests['main']} and {digests['guide']}" in " ".join(block.split())
