"""An external arm becomes the image set that `generate` leaves: read, brought to one canvas, and paired."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from external_images import comfy_graph, picture, save_folder, texts
from PIL import Image

from pipeline.errors import InputError
from pipeline.external import external_set
from pipeline.external.external_set import bring, external_arms, study_canvas
from pipeline.external.folder_images import folder_digest
from pipeline.generation.shard_files import SET_FEATURES
from pipeline.layout import REFERENCE_SET, SETS, TRACES
from pipeline.preflight import check_arms, study_digests
from pipeline.reference.canvas import fitted
from pipeline.reference.image_folder import copy_images
from pipeline.storage.places import Places
from pipeline.storage.shards import decode_images, read_set, read_table, shard_paths
from pipeline.study.study import Study, parse_study

IMAGES = 12


def folders(**more: Any) -> dict[str, Any]:
    """A study of two folders, as the study compare_folders composes it."""
    return {
        "name": "folders",
        "baseline": "a",
        "model": None,
        "sampler": None,
        "prompts": {"source": "empty"},
        "text": {"syntax": "plain"},
        "reference": {
            "images": 2 * IMAGES,
            "world_seed": 0,
            "source": "images/real",
            "canvas": {"width": 32, "height": 24},
        },
        "generate": {"images": IMAGES, "first_seed": 0, "shard": 8, "batch": 4},
        "arms": {"a": {"from_folder": "images/a"}, "b": {"from_folder": "images/b"}},
        "features": {"primary": "pyramid", "extractors": {"pyramid": {"model": "pyramid"}}},
        "metrics": {"precision_recall_k": 3, "density_coverage_k": 5, "resamples": 100, "level": 0.95, "seed": 0},
        "labeling": {
            "ask": "pairs",
            "pairs_with": "baseline",
            "minutes": 20,
            "seconds_per_pair": 6,
            "seconds_per_image": 8,
            "expected_rate": 0.2,
            "repeats": 0.1,
            "overlap": 0.2,
            "labellers": 2,
            "triage": 0,
            "seed": 0,
            "transport": "upload",
            "preannotate": False,
        },
        "executor": {"kind": "local", "workers": 0, "retries": 3},
        "tracking": {"uri": "sqlite:///mlflow.db", "experiment": "guidedrift"},
        **more,
    }


@pytest.fixture
def two_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with the folders images/a, images/b of twelve images each, and images/real."""
    monkeypatch.chdir(tmp_path)
    save_folder(Path("images/a"), IMAGES)
    save_folder(Path("images/b"), IMAGES, first=100)
    save_folder(Path("images/real"), 2 * IMAGES, first=200)
    return tmp_path


@pytest.fixture
def study(two_folders: Path) -> Study:
    return parse_study(folders(), "test")


def brought(study: Study) -> dict[str, list[dict[str, Any]]]:
    for arm in external_arms(study):
        bring(arm, Places())
    return {name: read_set(SETS / name).to_pylist() for name in study.external}


def test_the_set_has_what_a_generated_one_has_and_what_the_files_say(study: Study) -> None:
    rows = brought(study)["a"]
    assert set(SET_FEATURES) <= set(rows[0])
    assert [row["pair_id"] for row in rows] == list(range(IMAGES))
    assert [row["image_id"] for row in rows] == [f"a-{k:06d}" for k in range(IMAGES)]
    for row in rows:
        k = int(row["file"][:3])
        assert (row["prompt"], row["seed"]) == (f"image {k}", k)
        assert json.loads(row["metadata"])["sampler"] == "Euler a"
    assert [len(read_table(path)) for path in shard_paths(TRACES / "a")] == [0, 0]


def test_every_image_is_on_the_canvas_of_the_real_ones_and_what_was_done_is_said(study: Study) -> None:
    rows = brought(study)["a"]
    images = list(decode_images(read_set(SETS / "a")))
    assert {image.size for image in images} == {(32, 24)}
    assert {row["size"] for row in rows} == {"40x30"}
    assert {row["done"] for row in rows} == {'["shrunk"]'}
    first = Image.open(Path("images/a") / rows[0]["file"]).convert("RGB")
    assert np.array_equal(np.asarray(images[0]), np.asarray(fitted(first, (32, 24))))


MODES = [
    ("RGBA", "png", {}, "laid on white"),
    ("L", "png", {}, "from grey to RGB"),
    ("P", "png", {}, "from a palette to RGB"),
    ("CMYK", "jpg", {}, "from CMYK to RGB"),
    ("RGB", "jpg", {"exif": 6}, "turned upright"),
    ("I;16", "png", {}, "from 16 to 8 bits"),
]


@pytest.mark.parametrize(("mode", "suffix", "saved", "said"), MODES)
def test_images_of_every_mode_are_read_by_the_rules_of_reference_folders(
    study: Study, mode: str, suffix: str, saved: dict[str, int], said: str
) -> None:
    old = sorted(Path("images/a").glob("*.png"))[0]
    new = old.with_suffix(f".{suffix}")
    old.unlink()
    if mode == "I;16":
        Image.fromarray(np.full((30, 40), 40_000, np.uint16)).save(new)
    elif saved:
        exif = Image.Exif()
        exif[0x0112] = saved["exif"]
        picture(0).save(new, exif=exif)
    else:
        picture(0).convert(mode).save(new)
    row = next(row for row in brought(study)["a"] if row["file"] == new.name)
    assert said in json.loads(row["done"])
    copy_images(Path("images/a"), REFERENCE_SET, IMAGES, 0, (32, 24))
    same = next(one for one in read_set(REFERENCE_SET).to_pylist() if one["file"] == new.name)
    assert same["image"]["bytes"] == row["image"]["bytes"]


def test_the_middle_of_another_shape_is_kept() -> None:
    wide = Image.new("RGB", (300, 100), "red")
    wide.paste("blue", (100, 0, 200, 100))
    kept = np.asarray(fitted(wide, (50, 50)))
    assert np.abs(kept[:, 2:-2] - np.array((0, 0, 255))).max() <= 1  # at the cut Lanczos sees the red beside it


def test_without_a_canvas_of_its_own_the_real_images_set_it(two_folders: Path) -> None:
    content = folders()
    del content["reference"]["canvas"]
    copy_images(Path("images/real"), REFERENCE_SET, 2 * IMAGES, 0)
    assert study_canvas(parse_study(content, "test")) == (40, 30)


def test_finished_shards_are_kept_and_a_changed_file_makes_its_own_anew(study: Study) -> None:
    brought(study)
    arm = external_arms(study)[0]
    assert bring(arm, Places()) == 0
    digest = study_digests(study)
    path = Path("images/a") / arm.images[0].file
    said = texts(parameters=Image.open(path).text["parameters"])  # type: ignore[attr-defined]
    picture(77).save(path, pnginfo=said)
    assert bring(external_arms(study)[0], Places()) == 1
    assert study_digests(study) != digest
    assert set(digest) == {"from images/a", "from images/b"}


def test_the_code_that_reads_is_part_of_the_fingerprint(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    before = [shard.fingerprint for shard in external_arms(study)[0].shards]
    monkeypatch.setattr(external_set, "unit_digests", lambda unit: {unit: "other"})
    assert not set(before) & {shard.fingerprint for shard in external_arms(study)[0].shards}


def test_a_caption_stands_for_the_prompt_where_the_file_has_none(study: Study) -> None:
    place = Path("images/a/000.png")
    picture(0).save(place)
    place.with_suffix(".txt").write_text("a caption\nof two lines")
    row = next(row for row in brought(study)["a"] if row["file"] == "000.png")
    assert (row["prompt"], row["seed"], row["metadata"]) == ("a caption of two lines", None, "")


def test_a_seed_that_a_browser_would_round_is_kept_as_metadata_alone(study: Study) -> None:
    said = texts(prompt=json.dumps(comfy_graph(seed=2**64 - 1)))
    picture(0).save(Path("images/a/000.png"), pnginfo=said)
    row = next(row for row in brought(study)["a"] if row["file"] == "000.png")
    assert row["seed"] is None
    assert json.loads(row["metadata"])["seed"] == 2**64 - 1


def test_others_scores_stand_beside_the_images(two_folders: Path) -> None:
    lines = [f"{k:03d}.png,{k / 2}" for k in range(IMAGES - 1)]
    Path("images/a.csv").write_text("\n".join(["file,pick", *lines]))
    content = folders(
        arms={
            "a": {"from_folder": {"folder": "images/a", "scores": "images/a.csv"}},
            "b": {"from_folder": "images/b"},
        }
    )
    rows = brought(parse_study(content, "test"))["a"]
    assert {row["file"]: json.loads(row["scores"]) for row in rows} == {
        f"{k:03d}.png": {"pick": k / 2} if k < IMAGES - 1 else {} for k in range(IMAGES)
    }


def refused(study: Study) -> str:
    with pytest.raises(InputError) as error:
        check_arms(study)
    return str(error.value)


def test_a_folder_with_too_few_images_is_refused_before_any_work(study: Study) -> None:
    for path in sorted(Path("images/a").iterdir())[:9]:
        path.unlink()
    assert refused(study) == (
        "arms.a.from_folder images/a holds 3 images, generate.images is 12; add images, or lower generate.images, "
        "which is at least 10"
    )


def test_a_file_that_is_no_image_is_named_before_any_work(study: Study) -> None:
    Path("images/b/000.png").write_bytes(b"<html>")
    assert refused(study).startswith("arms.b.from_folder images/b: 000.png is not a readable image (")


def test_a_truncated_image_is_named_when_it_is_read(study: Study) -> None:
    place = Path("images/b/000.png")
    place.write_bytes(place.read_bytes()[:-700])
    with pytest.raises(
        InputError, match=r"arms\.b\.from_folder images/b: 000\.png is not a readable image .*; replace"
    ):
        brought(study)


def test_a_missing_folder_is_named(two_folders: Path) -> None:
    study = parse_study(folders(arms={"a": {"from_folder": "images/c"}}), "test")
    assert refused(study).startswith("arms.a.from_folder images/c is not a folder; put images there (.png, .jpg,")


def test_the_digest_of_a_folder_is_of_names_captions_and_scores_too(study: Study) -> None:
    own = study.arm("a").from_folder
    assert own is not None
    first = folder_digest(own)
    Path("images/a/000.txt").write_text("a caption")
    second = folder_digest(own)
    Path("images/a/001.png").rename("images/a/renamed.png")
    assert len({first, second, folder_digest(own)}) == 3
