"""A folder as one arm among arms that are generated."""

from pathlib import Path
from typing import Any

import pytest
from external_images import save_folder

from pipeline.command.plan import plan_of
from pipeline.generate import Progress, generate
from pipeline.integrity.artefact_checks import study_artefacts
from pipeline.layout import COSTS, REFERENCE_SET, SETS, TRACES
from pipeline.preflight import check_arms, study_digests
from pipeline.results.image_scores import image_scores
from pipeline.storage.places import Places
from pipeline.storage.shards import decode_images, read_set
from pipeline.study.study import Study, parse_study
from pipeline.tinybooru.build import build


@pytest.fixture
def study(params: dict[str, Any], networks_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """An unguided arm and a folder of images with its seeds and some more; the real images are tinybooru's."""
    monkeypatch.chdir(tmp_path)
    for name in ("main", "guide"):
        (tmp_path / name).symlink_to(networks_folder / name)
    save_folder(Path("images/mine"), 20, first=95)
    build(REFERENCE_SET, "reference", 32, 0, good_only=True)
    arms = {"unguided": {"method": "unguided", "scale": 1.0}, "mine": {"from_folder": "images/mine"}}
    model = {"name": "random", "main": "main", "guide": "guide"}
    generated = {**params["generate"], "first_seed": 97}
    return parse_study({**params, "model": model, "arms": arms, "generate": generated}, "test")


def test_a_folder_and_networks_make_sets_of_the_same_pairs(study: Study) -> None:
    check_arms(study)
    done = generate(study, list(study.arms), Places())
    assert done == {"unguided": Progress(2, 2), "mine": Progress(2, 2)}
    assert generate(study, list(study.arms), Places()) == {"unguided": Progress(0, 2), "mine": Progress(0, 2)}
    ours, mine = (read_set(SETS / arm) for arm in ("unguided", "mine"))
    assert ours["pair_id"].to_pylist() == mine["pair_id"].to_pylist()
    assert ours["seed"].to_pylist() == mine["seed"].to_pylist() == list(range(97, 113))
    assert set(mine["paired_by"].to_pylist()) == {"seed"}
    assert {image.size for image in decode_images(mine)} == {(64, 64)}, "the canvas of the real images"
    assert (COSTS / "unguided.json").is_file()
    assert not (COSTS / "mine.json").exists(), "no one knows what these images cost"


def test_what_was_written_is_what_verify_asks_for(study: Study) -> None:
    generate(study, list(study.arms), Places())
    wanted = [one for one in study_artefacts(study) if one.path.parts[1:2] in (("sets",), ("trace",), ("cost",))]
    assert {one.path.parent.name for one in wanted} == {"unguided", "mine", "cost"}
    assert [one.finding() for one in wanted] == [None] * len(wanted)
    next((TRACES / "mine").glob("*.parquet")).write_bytes(b"")
    assert any(one.finding() for one in wanted)


def test_the_plan_counts_the_folder_as_there(study: Study) -> None:
    plan = plan_of(study)
    assert {arm.name: (arm.missing, arm.evaluations) for arm in plan.arms}["mine"] == (0, 0)
    assert plan.missing == 16


def test_digests_hold_networks_and_folder(study: Study) -> None:
    assert set(study_digests(study)) == {"main", "guide", "from images/mine"}


def test_a_study_that_generates_has_every_score_of_its_kind(study: Study) -> None:
    names = [row.name for row in image_scores(study)]
    assert {"clip_score", "aesthetic", "malformed", "kind_pattern", "realism", "saturation"} <= set(names)
    assert not {"pickscore", "lpips"} & set(names)
