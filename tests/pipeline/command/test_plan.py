"""A plan: what a study takes, and what of it is there already, without opening a network."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from one_arm import generate
from repository_copy import ROOT
from safetensors.torch import save_file

from pipeline.command.durations import in_words, remember, stage_seconds, workers
from pipeline.command.finished import expected_inputs, finished_images
from pipeline.command.plan import evaluations, plan_of, shown
from pipeline.generation import shard_plan
from pipeline.layout import COSTS, REPORT, SETS, WEIGHTS
from pipeline.preflight import study_digests
from pipeline.prompting.embedding_names import EMBEDDINGS
from pipeline.storage.places import Places
from pipeline.study.study import Study, load_study, parse_study

ARMS = {
    "unguided": {"method": "unguided", "scale": 1, "probes": ["empty", "negative", "guide"]},
    "cfg": {"method": "cfg", "scale": 3},
    "negative": {"method": "negative", "scale": 2, "probes": ["empty"]},
    "autoguidance": {"method": "autoguidance", "scale": 2},
}


@pytest.fixture
def small(networks_project: Path) -> Study:
    """A study over the random networks in the working folder, as after `preflight`."""
    params = yaml.safe_load((networks_project / "params.yaml").read_text())
    params["arms"] = {name: dict(arm) for name, arm in ARMS.items()}
    for name in ("unguided", "negative"):
        params["arms"][name]["negative_prompt"] = "bad"
    params["negative"] = "bad"
    (networks_project / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    study = load_study()
    Path(WEIGHTS).parent.mkdir(parents=True, exist_ok=True)
    Path(WEIGHTS).write_text(json.dumps(study_digests(study)))
    return study


@pytest.mark.parametrize("arm", ["unguided", "cfg", "negative_low", "autoguidance", "reseeded"])
def test_what_a_plan_compares_is_what_a_record_has(arm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    study = load_study()
    recorded = shard_plan.plan_arm(study, arm, shard_plan.arm_texts(study, arm), "cpu").inputs
    mine = expected_inputs(study, arm)
    assert {key: recorded.get(key) for key in mine} == mine
    beside = {key.partition(".")[0] for key in recorded.keys() - mine.keys()}
    assert beside <= {"networks", "texts", "image_to_image", "machine"}, "what else decides pixels is compared as well"
    assert recorded.keys() - mine.keys() >= {"machine.1"}, "the kind of device alone is not: torch would have to say it"


def test_an_arm_takes_as_many_evaluations_as_planned(small: Study) -> None:
    for name, arm in small.arms.items():
        generate(small, name, Places())
        cost = json.loads((COSTS / f"{name}.json").read_text())
        assert cost["nfe_per_image"] + cost["probe_nfe_per_image"] == evaluations(small, arm), name


def test_what_is_there_is_known_until_something_changes(small: Study) -> None:
    images = small.generate.images
    EMBEDDINGS.mkdir()
    assert finished_images(small) == dict.fromkeys(ARMS, 0)
    for name in ("cfg", "negative"):
        generate(small, name, Places())
    there = {"unguided": 0, "cfg": images, "negative": images, "autoguidance": 0}
    assert finished_images(small) == there

    def changed(**keys: object) -> dict[str, int]:
        return finished_images(parse_study({**small.model_dump(exclude_unset=True), **keys}, "changed"))

    arms = {name: arm.model_dump(exclude_unset=True) for name, arm in small.arms.items()}
    assert changed(arms={**arms, "cfg": {**arms["cfg"], "scale": 4.0}}) == {**there, "cfg": 0}
    worse = {name: {**arms[name], "negative_prompt": "worse"} for name in ("unguided", "negative")}
    assert changed(arms={**arms, **worse}, negative="worse") == {**there, "negative": 0}
    assert changed(sampler={"scheduler": "ddim", "steps": 4}) == dict.fromkeys(ARMS, 0)
    assert changed(model={**small.model.model_dump(exclude_unset=True), "guide": "networks/main"}) == dict.fromkeys(
        ARMS, 0
    )
    # A word of the negative prompt becomes the name of an embedding.
    save_file({"emb_params": torch.zeros(1, 32)}, EMBEDDINGS / "bad.safetensors")
    assert changed() == {**there, "negative": 0}
    (EMBEDDINGS / "bad.safetensors").unlink()
    assert changed() == there
    (SETS / "cfg/part-00001.parquet").unlink()
    assert finished_images(small) == {**there, "cfg": small.generate.shard}


def test_a_plan_says_what_is_left(small: Study) -> None:
    plan = plan_of(small)
    assert plan.total_seconds is None, "nothing of this model was ever generated"
    assert "time: unknown, no image of this model was generated here yet" in shown(plan)
    for name in ARMS:
        generate(small, name, Places())
    done = plan_of(small)
    assert (done.missing, done.missing_evaluations) == (0, 0)
    text = shown(done)
    assert "images: 64, of which 0 are to be generated" in text
    assert done.total_seconds is not None
    REPORT.parent.mkdir()
    REPORT.write_text("<!doctype html>")
    asking = plan_of(small).total_seconds
    assert asking is not None
    assert asking < 30 < done.total_seconds, "DVC skips what did not change"
    more = plan_of(small.model_copy(update={"generate": small.generate.model_copy(update={"images": 32})}))
    assert more.total_seconds is not None
    assert "as earlier images took on this machine (cpu" in more.measured


def test_stages_take_as_long_as_they_took_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    elsewhere = stage_seconds(1000, 5)
    assert stage_seconds(2000, 5)["measure"] > elsewhere["measure"]
    remember({"measure": 108.0, "report": 20.0, "generate": 3.0}, 1000)
    here = stage_seconds(2000, 5)
    assert (here["measure"], here["report"]) == (208.0, 20.0)
    assert here["compare"] == stage_seconds(2000, 5)["compare"]
    assert "generate" not in here
    (tmp_path / ".dvc/tmp/guidedrift/seconds.json").write_text("half a fi")
    assert stage_seconds(1000, 5) == elsewhere


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(3, "3 s"), (89, "89 s"), (100, "2 min"), (5399, "90 min"), (5460, "1 h 31 min"), (7260, "2 h 01 min")],
)
def test_durations_are_said_as_people_say_them(seconds: float, words: str) -> None:
    assert in_words(seconds) == words.replace("90 min", "1 h 30 min")


def test_few_images_are_generated_by_one_process() -> None:
    assert workers(100, 1) == 1
    assert workers(10**6, 10**6) == 1
