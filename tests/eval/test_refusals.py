"""A stage that refuses its input writes no number: what was there stays byte for byte, and what was not is not."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from repository_copy import ROOT

from eval import measure
from eval.comparison import compare
from eval.distances.neighbours import neighbour_metrics
from eval.features.clip import clip_score, load_clip
from eval.features.extraction import REFERENCE, SetFeatures, load_features, refresh, save_features, study_features
from eval.scorers.aesthetic import load_aesthetic_head
from eval.scorers.finish import finish
from eval.scorers.kinds import KINDS, kind_probabilities, load_kind_prompts
from eval.scorers.malformed import load_classifier
from eval.scorers.realism import realism
from eval.statistics.bootstrap import mean_interval
from eval.statistics.clusters import prompt_clusters
from pipeline.compose import compose
from pipeline.errors import run_stage
from pipeline.generation.shard_files import SET_FEATURES as COLUMNS
from pipeline.layout import FEATURES, HEADLINES, METRICS, REFERENCE_SET, SCORES, SETS
from pipeline.results.comparison import COMPARISON
from pipeline.storage.shards import decode_images, read_set, read_table, write_shard
from pipeline.study.study import load_study
from pipeline.tinybooru.build import build

ARMS = ("unguided", "cfg")
IMAGES, REFERENCE_IMAGES = 12, 16


def score() -> None:
    """What `measure` does once it has found that an arm is to be scored."""
    measure.score_job(load_study(), {"cfg": "inputs"}, torch.device("cpu"))("cfg")


STAGES: dict[str, Callable[[], None]] = {"score": score, "compare": compare.main}


def run(monkeypatch: pytest.MonkeyPatch, stage: Callable[[], None], *arguments: str) -> None:
    """A stage as DVC runs it, but in this process. Raises SystemExit where it refuses."""
    monkeypatch.setattr(sys, "argv", ["stage", *arguments])
    run_stage(stage)


def draw(arm: str, split: str, images: int) -> None:
    """An arm of real images, paired by their numbers."""
    build(Path("drawn") / arm, split, images, 0)
    columns: dict[str, list[Any]] = read_set(Path("drawn") / arm, ["image_id", "image", "prompt"]).to_pydict()
    columns |= {name: list(range(images)) for name in ("pair_id", "seed")}
    columns |= {"arm": [arm] * images, "negative_prompt": [""] * images}
    write_shard(SETS / arm / "part-00000.parquet", columns, COLUMNS, f"{images} images")


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two arms, its reference, features and scores, made by the stages themselves."""
    folder = tmp_path_factory.mktemp("scored")
    params: dict[str, Any] = json.loads(json.dumps(compose(ROOT / "conf", [])))
    params["arms"] = {arm: params["arms"][arm] for arm in ARMS}
    params["features"]["primary"] = "clip"
    params["features"]["extractors"] = {"clip": params["features"]["extractors"]["clip"]}
    params["metrics"]["resamples"] = 100
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    (folder / "models").symlink_to(ROOT / "models")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        build(REFERENCE_SET, "reference", REFERENCE_IMAGES, 0)
        for arm, split in zip(ARMS, ("train", "validation"), strict=True):
            draw(arm, split, IMAGES)
        run(monkeypatch, measure.main)
    return folder


@pytest.fixture
def study(scored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the scored study, as working directory, with a comparison of old."""
    folder = tmp_path / "study"
    shutil.copytree(scored, folder, symlinks=True)
    monkeypatch.chdir(folder)
    COMPARISON.write_text("of old")
    return folder


def numbers() -> dict[Path, bytes]:
    """Every file that holds numbers, and its content."""
    found = [
        path for folder in (METRICS, HEADLINES, SCORES, Path("plots")) for path in folder.rglob("*") if path.is_file()
    ]
    return {path: path.read_bytes() for path in found}


def refusal(stage: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What a stage says when it refuses, after which the numbers are as they were."""
    before = numbers()
    capsys.readouterr()
    with pytest.raises(SystemExit) as refused:
        run(monkeypatch, STAGES[stage])
    assert refused.value.code == 2
    assert numbers() == before
    return capsys.readouterr().err.splitlines()[-1]


def change(name: str, by: Callable[[SetFeatures], SetFeatures]) -> None:
    path = FEATURES / name / "clip.safetensors"
    save_features(path, by(load_features(path)))


def nan(found: SetFeatures) -> SetFeatures:
    return replace(found, images=found.images.index_fill(0, torch.tensor([3, 5]), torch.nan))


def wider(found: SetFeatures) -> SetFeatures:
    return replace(found, images=torch.cat([found.images, found.images[:, :1]], 1))


def another(key: str) -> Callable[[SetFeatures], SetFeatures]:
    return lambda found: replace(found, provenance={**found.provenance, key: "another"})


def test_what_is_refused_below_was_scored_before_it_was_changed(study: Path) -> None:
    assert {path.name for path in numbers()} >= {"unguided.json", "cfg.json", "cfg.parquet", "compare.json"}
    assert json.loads((HEADLINES / "cfg.json").read_text())["n"] == IMAGES


def test_an_arms_numbers_begin_with_the_distance_and_have_every_space_by_name(study: Path) -> None:
    scores = json.loads((METRICS / "detail" / "cfg.json").read_text())["scores"]
    # MLflow plots the first metric that runs share.
    assert next(iter(scores)) == "fd"
    assert scores["fd"] == scores["clip_fd"]
    spaces = {name.removesuffix("_recall") for name in scores if name.endswith("_recall")}
    assert spaces == {"clip", "clip_unit"}


def test_every_score_is_of_the_arms_images_and_the_clip_score_of_what_the_baseline_was_asked_for(study: Path) -> None:
    asked_for = load_study()
    settings, device = asked_for.metrics, torch.device("cpu")
    arm, baseline, reference = (
        load_features(FEATURES / name / "clip.safetensors") for name in ("cfg", "unguided", REFERENCE)
    )
    assert not torch.allclose(arm.texts, baseline.texts), "the arms have prompts of their own"
    images = list(decode_images(read_set(SETS / "cfg", ["image"])))
    clip = load_clip(Path(asked_for.features.extractors["clip"].weights), device)
    prompts = {kind: clip.embed_texts(own) for kind, own in load_kind_prompts(Path(settings.kind_prompts)).items()}
    kinds = kind_probabilities(arm.images, prompts, clip.logit_scale)
    expected = {
        "clip_score": clip_score(arm.images, baseline.texts),
        "aesthetic": load_aesthetic_head(Path(settings.aesthetic_head))(arm.images),
        "p_malformed": load_classifier(Path(settings.malformed_classifier), device)(images),
        **{f"kind_{kind}": kinds[:, KINDS.index(kind)] for kind in KINDS},
        "realism": realism(arm.images, reference.images, settings.precision_recall_k),
        "inside_reference": neighbour_metrics(arm.images, reference.images, settings.precision_recall_k).inside,
        **vars(finish(images)),
    }
    scores = read_table(SCORES / "cfg.parquet")
    assert set(scores.column_names) == {"image_id", "pair_id", *expected}
    for name, values in expected.items():
        assert scores[name].to_pylist() == pytest.approx(values.tolist(), rel=1e-6), name


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("name", "by", "message"),
    [
        ("cfg", nan, "NaN or infinity in 2 of 12 "),
        ("reference", nan, "NaN or infinity in .*2 of 16 images"),
        ("cfg", another("extractor_digest"), "differ in extractor_digest: another and"),
        ("reference", another("resize"), "differ in resize: .* and another"),
        ("cfg", wider, "129.*128"),
        ("reference", wider, "128.*129"),
    ],
)
def test_features_that_do_not_fit_leave_no_number(
    study: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stage: str,
    name: str,
    by: Callable[[SetFeatures], SetFeatures],
    message: str,
) -> None:
    change(name, by)
    said = refusal(stage, monkeypatch, capsys)
    assert re.fullmatch(f"error: .*{message}.*", said), said


def test_fewer_images_than_a_metric_needs_leave_no_number(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for arm in ARMS:
        draw(arm, "validation", 5)
    refresh(study_features(load_study(), ARMS), load_study().executor)
    for path in numbers():  # what is not there must not come
        if path.stem == "cfg":
            path.unlink()
    said = refusal("score", monkeypatch, capsys)
    assert "need at least 6 images per set, found 5 (the sets hold 5 and 16)" in said


def test_clip_scores_of_an_arm_without_prompts_go_by_the_prompts_of_the_pairs(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [f"a person of kind {k % 10}" for k in range(IMAGES)]
    for arm, prompts in (("unguided", asked), ("cfg", [""] * IMAGES)):
        columns = read_set(SETS / arm, list(COLUMNS)).to_pydict() | {"prompt": prompts}
        write_shard(SETS / arm / "part-00000.parquet", columns, COLUMNS, "other prompts")
    run(monkeypatch, measure.main, "--arm", "cfg")
    found = json.loads((METRICS / "detail/cfg.json").read_text())["scores"]
    for name, clusters in (("clip_score", prompt_clusters(asked)), ("aesthetic", None)):
        values = torch.tensor(read_table(SCORES / "cfg.parquet", [name])[name].to_pylist())
        ask = load_study().metrics
        expected = mean_interval(values, ask.resamples, ask.level, ask.seed, clusters)
        assert (found[name]["low"], found[name]["high"]) == pytest.approx((expected.low, expected.high))


def test_a_foreign_reference_leaves_no_comparison(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    build(REFERENCE_SET, "reference", REFERENCE_IMAGES, seed=1)
    refresh(study_features(load_study(), [REFERENCE]), load_study().executor)
    said = refusal("compare", monkeypatch, capsys)
    assert re.search(r"scores of '\w+' have reference set \w+, the features \w+; run `dvc repro`", said), said


def test_images_that_no_extractor_can_be_had_for_get_no_features(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (study / "models").unlink()
    before = (FEATURES / "cfg/clip.safetensors").read_bytes()
    for there in (True, False):
        with pytest.raises(SystemExit) as refused:
            run(monkeypatch, measure.main, "--arm", "cfg")
        assert refused.value.code == 2
        assert "is missing; get it with `make train`" in capsys.readouterr().err
        assert [path.read_bytes() for path in (FEATURES / "cfg").iterdir()] == [before] * there
        (FEATURES / "cfg/clip.safetensors").unlink(missing_ok=True)
