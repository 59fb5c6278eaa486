"""The bar over a whole study: from the stages that DVC names and the files that they leave."""

import os
from pathlib import Path

import pytest

from pipeline.command.bar import Progress
from pipeline.command.study_run import _note

SECONDS = {"preflight": 10.0, "generate": 100.0, "measure": 50.0, "report": 40.0}


@pytest.fixture
def progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Progress:
    monkeypatch.chdir(tmp_path)
    return Progress(SECONDS, missing=4, arms=2)


def write(path: str, before: float | None = None) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).touch()
    if before is not None:
        os.utime(path, (before, before))


def test_a_stage_counts_when_the_next_one_begins(progress: Progress) -> None:
    assert progress.done() == 0
    for stage, done in (("preflight", 0), ("generate", 10), ("measure", 110), ("report", 160)):
        progress.enter(stage)
        assert progress.done() == done
    assert progress.total == 200


def test_shards_and_arms_move_the_bar_within_a_stage(progress: Progress) -> None:
    write("data/sets/cfg/part-00000.parquet", before=progress.started - 1000)
    progress.enter("generate")
    assert progress.within() == 0, "it was there before"
    write("data/sets/cfg/part-00001.parquet", before=progress.started + 1)
    write("data/sets/negative/part-00000.parquet", before=progress.started + 2)
    assert progress.done() == 50
    assert progress.words().startswith("generate, 2 of 4 shards; about ")
    progress.enter("measure")
    write("data/headlines/cfg.json", before=progress.started + 3)
    assert progress.done() == 100 + 25


def test_what_is_left_follows_the_speed_of_this_run(progress: Progress) -> None:
    progress.started -= 20
    assert progress.remaining() == 200, "nothing is done, so nothing is known of the speed"
    progress.enter("measure")
    progress.passed |= {"preflight", "generate"}
    assert progress.remaining() == pytest.approx(90 * 20 / 110, rel=0.01)


def test_dvcs_words_are_the_stages_that_it_runs_and_skips(progress: Progress) -> None:
    spent: dict[str, float] = {}
    for line in (
        "Running stage 'preflight':\n",
        "> sh pipeline/stage.sh eval.preflight\n",
        "Stage 'reference' didn't change, skipping\n",
        "Running stage 'metrics@cfg':\n",
        "Running stage 'metrics@negative':\n",
        "Stage 'report' is cached - skipping run, checking out outputs\n",
    ):
        _note(line, progress, spent)
    assert progress.stage == "report"
    assert progress.passed >= {"preflight", "reference", "metrics"}
    assert set(spent) - {"began"} == {"preflight", "metrics"}, "a stage that was skipped says nothing of its time"
