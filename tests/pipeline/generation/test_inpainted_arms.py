"""Arms that inpaint, through the stage's own function: in pixels, along both noise paths, and in latents."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from one_arm import generate
from PIL import Image as PillowImage

from pipeline.errors import InputError
from pipeline.generation.shard_plan import plan_arm
from pipeline.layout import SETS
from pipeline.preflight import check_arms, study_digests
from pipeline.storage.places import Places
from pipeline.storage.shards import decode_images, read_set
from pipeline.study.study import Study, parse_study

START = {"method": "cfg", "scale": 3.0}
BOX = {"box": [0.25, 0.25, 0.75, 0.75]}
PIXELS = {"name": "random", "main": "main", "guide": "guide"}


def study_of(params: dict[str, Any], inpaint: dict[str, Any] | None, **model: str) -> Study:
    arm = {**START, "image_to_image": {"from": "start", "source": START, "strength": 1.0}}
    params["arms"] = {"start": START, "inpainted": arm if inpaint is None else {**arm, "inpaint": inpaint}}
    params["baseline"], params["model"] = "start", model or PIXELS
    params["generate"] |= {"images": 10, "shard": 10, "batch": 5}
    return parse_study(params, "test")


def generated(study: Study, root: Path) -> tuple[np.ndarray, np.ndarray]:
    """The images [N, H, W, 3] of the two arms."""
    for name in ("start", "inpainted"):
        generate(study, name, Places.under(root))
    start, inpainted = (
        np.stack([np.asarray(image) for image in decode_images(read_set(root / SETS / name))])
        for name in ("start", "inpainted")
    )
    return start, inpainted


def test_pixels_outside_a_mask_are_the_start_images_and_those_inside_are_not(
    params: dict[str, Any], networks_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(networks_folder)
    study = study_of(params, BOX)
    check_arms(study)
    start, inpainted = generated(study, tmp_path)
    inside = np.zeros(start.shape[1:3], dtype=bool)
    quarter, rest = start.shape[1] // 4, -(start.shape[1] // 4)
    inside[quarter:rest, quarter:rest] = True
    assert (start[:, ~inside] == inpainted[:, ~inside]).all()
    assert (start[:, inside] != inpainted[:, inside]).mean() > 0.5


@pytest.mark.parametrize(
    ("folder", "kind", "scheduler"), [("pipelines_folder", "sd", "ddim"), ("flows_folder", "sd3", "euler")]
)
def test_latents_outside_a_mask_change_less_than_those_inside(
    params: dict[str, Any],
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    folder: str,
    kind: str,
    scheduler: str,
) -> None:
    monkeypatch.chdir(request.getfixturevalue(folder))
    params["sampler"] = {"scheduler": scheduler, "steps": 3}
    study = study_of(params, {"box": [0, 0, 0.25, 1]}, name=kind, main=kind, guide=kind)
    start, inpainted = generated(study, tmp_path)
    change = np.abs(start.astype(int) - inpainted).mean((0, 1, 3))  # by column of pixels
    assert change[:4].mean() > 1.3 * change[24:].mean()


def test_the_mask_decides_the_images_and_a_file_is_watched(
    params: dict[str, Any], networks_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(networks_folder)
    Path("masks").mkdir(exist_ok=True)
    side = 64

    def planned(how: dict[str, Any] | None) -> tuple[str, dict[str, str]]:
        plan = plan_arm(study_of(params, how), "inpainted", {"prompt": ["a"] * 10, "empty": [""] * 10}, "cpu")
        return plan.shards[0].fingerprint, plan.inputs

    box = PillowImage.new("L", (side, side))
    box.paste(255, (0, 0, 8, 8))
    box.save("masks/one.png")
    file = {"file": "masks/one.png"}
    before = study_digests(study_of(params, file))["mask masks/one.png"]
    found = {planned(None)[0], planned(BOX)[0], planned({**BOX, "feather": 0.1})[0], planned(file)[0]}
    box.paste(255, (0, 0, 8, 12))
    box.save("masks/one.png")
    assert len(found | {planned(file)[0]}) == 5
    assert study_digests(study_of(params, file))["mask masks/one.png"] != before
    assert "inpaint.box" in planned(BOX)[1]
    assert not [key for key in planned(None)[1] if key.startswith("inpaint")]


def test_a_missing_mask_is_refused_by_preflight(
    params: dict[str, Any], networks_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(networks_folder)
    study = study_of(params, {"file": "masks/none.png"})
    assert study_digests(study)["mask masks/none.png"] is None
    with pytest.raises(InputError, match=r"^arms\.inpainted\.inpaint\.file masks/none\.png cannot be read"):
        check_arms(study)
