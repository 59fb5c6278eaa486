"""README and the guide: each command is run by a test, and each link and image is there."""

import json
import re
from pathlib import Path

import pytest
from documented import blocks, commands, files
from repository_copy import ROOT

from docs.kept_results import KEPT

README, GUIDE = ROOT / "README.md", ROOT / "docs/first-study.md"
INTEGRATION = "tests/integration"
REPRO = f"{INTEGRATION}/test_repro.py"
FIRST = f"{INTEGRATION}/test_first_study.py"
MINE = f"{INTEGRATION}/test_my_negative.py"
LABELS = f"{INTEGRATION}/test_label_studio.py"
COMMANDS = "tests/pipeline/test_command_line.py"
PUBLISH = "tests/pipeline/publishing/test_publish.py"
_WEIGHTS = "'*.json' '*.txt' '*.safetensors'"

# Which test runs a command; `make test` is how this one is run, `make setup` has been when it does.
RUN_BY = {
    "make repro": f"{REPRO}::test_everything_is_made",
    "make test": None,
    "make setup": None,
    'make repro OVERRIDES="arms.cfg.scale=4"': f"{REPRO}::test_another_scale_is_the_same_as_its_experiment",
    'make repro OVERRIDES="sampler=dpmsolver++"': f"{REPRO}::test_another_sampler_changes_images_and_numbers",
    'make repro OVERRIDES="study=presets"': f"{REPRO}::test_another_study_draws_its_presets",
    'make repro OVERRIDES="text=novelai"': f"{REPRO}::test_another_syntax_reads_the_same_prompts_otherwise",
    ".venv/bin/dvc exp run -S arms.cfg.scale=4": f"{REPRO}::test_an_experiment_with_another_scale_draws_that_arm_alone",
    "make experiments": f"{REPRO}::test_experiments_show_where_they_differ",
    "make label-studio": f"{LABELS}::test_labels_of_two_people_arrive_once_under_pseudonyms",
    "make label-demo": f"{LABELS}::test_simulated_labels_say_so_and_pre_annotations_do_not_pile_up",
    ".venv/bin/guidedrift list": f"{FIRST}::test_the_guide_word_by_word",
    "./guidedrift run": f"{REPRO}::test_everything_is_made",
    "./guidedrift run --study quick": f"{MINE}::test_one_command_answers_for_a_negative_prompt_with_everything_in_it",
    './guidedrift run --negative "bad hands, blurry"': (
        f"{MINE}::test_one_command_answers_for_a_negative_prompt_with_everything_in_it"
    ),
    "./guidedrift report": f"{FIRST}::test_the_guide_word_by_word",
    "make publish REPO=<owner>/<name>": f"{PUBLISH}::test_from_the_shell_and_back_every_image_is_the_same",
    **dict.fromkeys(
        (
            "cp -r models/tinybooru/main models/mine",
            "cp -r models/tinybooru/guide models/mine_guide",
            ".venv/bin/guidedrift plan --study mine",
            ".venv/bin/guidedrift run --study mine --yes",
            ".venv/bin/guidedrift report",
            ".venv/bin/guidedrift report --numbers",
            ".venv/bin/dvc metrics show",
            ".venv/bin/guidedrift run --study mine arms.my_negative.scale=2 --yes",
            ".venv/bin/guidedrift compare mine@1 mine",
            "make mlflow",
            "make publish REPO=<owner>/<name> DRY_RUN=1",
        ),
        f"{FIRST}::test_the_guide_word_by_word",
    ),
    # What `hf download` leaves is a folder in diffusers' layout, and the guide is followed with one.
    **dict.fromkeys(
        (
            f".venv/bin/hf download <owner>/<{name}> --include {_WEIGHTS} --local-dir models/{folder}"
            for name, folder in (("checkpoint", "mine"), ("weaker-checkpoint", "mine_guide"))
        ),
        f"{FIRST}::test_the_guide_word_by_word",
    ),
}


def test_every_command_of_readme_and_guide_is_run_by_a_test() -> None:
    shown = {*commands(README), *commands(GUIDE)}
    assert shown == set(RUN_BY)


@pytest.mark.parametrize("test", sorted({test for test in RUN_BY.values() if test}))
def test_the_test_of_a_command_is_there(test: str) -> None:
    path, name = test.split("::")
    assert re.search(rf"^def {name}\(", (ROOT / path).read_text("utf-8"), re.MULTILINE)


@pytest.mark.parametrize("document", sorted([README, *(ROOT / "docs").glob("*.md")]), ids=lambda path: path.name)
def test_links_and_images_of_the_documentation_are_there(document: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", document.read_text("utf-8"))
    assert [target for target in targets if not (document.parent / target).exists()] == []


@pytest.mark.parametrize("document", sorted([README, *(ROOT / "docs").glob("*.md")]), ids=lambda path: path.name)
def test_links_to_headings_find_them(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#\s]*)#([^)\s]+)\)", document.read_text("utf-8"))
    targets = [(document.parent / name if name else document, anchor) for name, anchor in links]
    assert [anchor for path, anchor in targets if anchor not in _anchors(path)] == []


def test_the_contents_of_the_decisions_name_every_one() -> None:
    text = (ROOT / "docs/decisions.md").read_text("utf-8")
    assert re.findall(r"^ *- \[(.+)\]\(#", text, re.MULTILINE) == re.findall(r"^###? (.+)", text, re.MULTILINE)


def _anchors(document: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a document."""
    headings = re.findall(r"^#+ (.+)", document.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("target", sorted(set(re.findall(r"`make ([a-z-]+)", README.read_text("utf-8")))))
def test_make_knows_the_targets_that_the_readme_names(target: str) -> None:
    assert re.search(rf"^{target}:.*## ", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)


def test_the_guide_shows_its_files_in_full() -> None:
    shown = files(GUIDE)
    assert set(shown) == {"conf/model/mine.yaml", "prompts/mine.txt", "conf/study/mine.yaml"}
    assert shown["prompts/mine.txt"].splitlines()[0] == "1person, solo, smile, blue hair"
    for name in ("conf/model/mine.yaml", "conf/study/mine.yaml"):
        assert shown[name].startswith("# @package "), "Hydra looks for it in the first line"


@pytest.mark.parametrize("document", sorted([README, *(ROOT / "docs").glob("*.md")]), ids=lambda path: path.name)
def test_a_block_is_what_its_file_holds_and_no_more(document: Path) -> None:
    """Copied whole, a path in the first line would be the first prompt, and would hide a package from Hydra."""
    first = [block.partition("\n")[0] for block in blocks(document)]
    assert [line for line in first if re.match(r"# (conf|prompts|images)/", line)] == []


def test_the_metrics_document_names_every_number_of_the_comparison() -> None:
    text = (ROOT / "docs/metrics.md").read_text("utf-8")
    comparison = json.loads((ROOT / KEPT).read_text("utf-8"))
    arm = comparison["arms"][1]
    # The longest name first: one may begin another.
    names = sorted((space["name"] for space in comparison["spaces"]), key=len, reverse=True)
    spaces = f"^({'|'.join(names)})_"
    scores = {re.sub("^kind_.*", "kind_*", re.sub(spaces, "", name)) for name in arm["scores"]}
    wanted = scores | set(arm["against_baseline"]) - {"adjusted_p", "preferences"}
    assert sorted(name for name in wanted if f"`{name}" not in text) == []
