"""The reference set of somebody's own images: what is copied, what is refused, and what the reader is told."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from repository_copy import ROOT

from eval.features.extraction import REFERENCE, Wanted, refresh
from pipeline import compose
from pipeline.errors import InputError, run_stage
from pipeline.integrity.locked_outputs import folder_md5
from pipeline.layout import REFERENCE_SET
from pipeline.publishing.dataset_card import Contents, write_card
from pipeline.reference import build as reference
from pipeline.reference.image_folder import SHARD_IMAGES, copy_images, shard_images
from pipeline.storage.shards import SHARD_BYTES, decode_images, read_set, shard_paths
from pipeline.study.study import Study, load_study, parse_study

PHOTOS = Path("images/photos")


def photo(k: int, size: tuple[int, int] = (32, 24)) -> Image.Image:
    noise = np.random.default_rng(k).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(noise)


@pytest.fixture
def photos(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """40 PNG images in a project's folder, some in a folder within; every other has a caption."""
    folder = project / PHOTOS
    (folder / "more").mkdir(parents=True)
    for k in range(40):
        place = folder / ("more" if k % 4 == 3 else ".") / f"{k:02d}.png"
        photo(k).save(place)
        if k % 2 == 0:
            place.with_suffix(".txt").write_text(f"an image,\nnumber {k}\n")
    (folder / "notes.md").write_text("no image")
    (folder / "._00.png").write_bytes(b"another program's")
    monkeypatch.setattr("pipeline.reference.image_folder.SHARD_IMAGES", 16)
    return folder


def copied(count: int = 40, seed: int = 0) -> list[dict[str, Any]]:
    copy_images(PHOTOS, REFERENCE_SET, count, seed)
    rows: list[dict[str, Any]] = read_set(REFERENCE_SET).to_pylist()
    return rows


def test_every_image_is_copied_to_the_pixel_with_its_caption(photos: Path) -> None:
    rows = copied()
    assert len(shard_paths(REFERENCE_SET)) == 3
    assert [row["image_id"] for row in rows] == [f"reference-{k:06d}" for k in range(40)]
    assert {row["file"] for row in rows} == {f"{'more/' if k % 4 == 3 else ''}{k:02d}.png" for k in range(40)}
    for row, image in zip(rows, decode_images(read_set(REFERENCE_SET)), strict=True):
        k = int(row["file"][-6:-4])
        assert image.tobytes() == photo(k).tobytes()
        assert row["prompt"] == ("" if k % 2 else f"an image, number {k}")


def test_of_more_images_the_seed_chooses_and_names_do_not_order(photos: Path) -> None:
    first, again, other = ([row["file"] for row in copied(20, seed)] for seed in (0, 0, 1))
    assert first == again
    assert len(set(first)) == 20
    assert set(first) != set(other)
    assert first != sorted(first)


@pytest.mark.parametrize(("suffix", "kind", "near"), [(".jpg", "JPEG", 3), (".JPEG", "JPEG", 3), (".webp", "WEBP", 0)])
def test_photographs_are_read_and_stand_upright(photos: Path, suffix: str, kind: str, near: float) -> None:
    taken = photo(7, (4, 3)).resize((32, 24), Image.Resampling.BICUBIC)
    held = Image.Exif()
    held[0x0112] = 6  # to be turned a quarter to the right
    best = {"lossless": True} if kind == "WEBP" else {"quality": 100, "subsampling": 0}
    taken.rotate(90, expand=True).save(photos / f"held{suffix}", kind, exif=held, **best)
    found = {row["file"]: row["image"]["bytes"] for row in copied(41)}[f"held{suffix}"]
    turned = Image.open(io.BytesIO(found))
    assert (turned.format, turned.size) == ("PNG", (32, 24))
    assert np.abs(np.asarray(turned, float) - np.asarray(taken, float)).mean() <= near


def test_shards_of_another_study_are_copied_in_their_order(photos: Path) -> None:
    rows = copied()
    mine = Path("images/mine")
    mine.mkdir()
    for path in shard_paths(REFERENCE_SET):
        (mine / path.name).write_bytes(path.read_bytes())
    copy_images(mine, REFERENCE_SET, 30, 5)
    again = read_set(REFERENCE_SET).to_pylist()
    for key in ("image", "prompt", "image_id"):
        assert [row[key] for row in again] == [row[key] for row in rows[:30]]


def test_what_is_finished_is_kept_and_what_changed_is_copied_again(photos: Path) -> None:
    copied()
    before = {path.name: path.stat().st_mtime_ns for path in shard_paths(REFERENCE_SET)}
    rows = copied()
    assert {path.name: path.stat().st_mtime_ns for path in shard_paths(REFERENCE_SET)} == before
    photo(100).save(photos / rows[20]["file"])
    copied()
    after = {path.name: path.stat().st_mtime_ns for path in shard_paths(REFERENCE_SET)}
    assert {name for name in before if before[name] != after[name]} == {"part-00001.parquet"}
    copied(20)
    assert len(shard_paths(REFERENCE_SET)) == 2


def test_shards_of_large_images_are_bounded_by_their_pixels() -> None:
    """256 images of 8.5 MB, 2.2 GB in one shard, could be written and not be read."""
    assert [shard_images(size) for size in ((64, 64), (512, 512), (1024, 1024))] == [SHARD_IMAGES] * 3
    assert [shard_images(size) for size in ((1700, 1667), (4096, 4096), (2**16, 2**16))] == [126, 21, 1]
    assert SHARD_BYTES > 126 * 8.5e6


def test_a_set_of_large_images_is_more_shards_of_the_same_images(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = copied()
    monkeypatch.setattr("pipeline.reference.image_folder.SHARD_BYTES", 7 * 32 * 24 * 3)
    large = copied()
    assert len(shard_paths(REFERENCE_SET)) == 6
    assert large == small


@pytest.mark.parametrize("hidden", ["I;16", "RGBA"])
def test_pixels_are_those_that_a_viewer_shows(photos: Path, hidden: str) -> None:
    ramp = np.linspace(0, 65535, 32 * 24).astype(np.uint16).reshape(24, 32)
    if hidden == "I;16":
        drawn, shown = Image.fromarray(ramp), np.repeat(ramp[..., None] / 257, 3, axis=2)
    else:
        drawn, shown = photo(5).convert("RGBA"), np.full((24, 32, 3), 255.0)
        drawn.putalpha(0)
    drawn.save(photos / "05.png")
    found = {row["file"]: row["image"]["bytes"] for row in copied()}["05.png"]
    pixels = np.asarray(Image.open(io.BytesIO(found)), float)
    assert np.abs(pixels - shown).max() <= 0.5
    assert pixels.mean() == pytest.approx(127.5 if hidden == "I;16" else 255, abs=0.1)


def test_an_image_with_a_workflow_in_it_is_copied(photos: Path) -> None:
    text = PngInfo()
    text.add_text("workflow", json.dumps({str(k): "a node" for k in range(100_000)}), zip=True)
    photo(5).save(photos / "05.png", pnginfo=text)
    found = {row["file"]: row["image"]["bytes"] for row in copied()}["05.png"]
    assert Image.open(io.BytesIO(found)).tobytes() == photo(5).tobytes()
    assert b"workflow" not in found


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"\xe9t\xe90.png", r"images/photos/\xe9t\xe90.png"),
        (b"more/\xe9t\xe90.txt", r"images/photos/more/\xe9t\xe90.txt"),
        (b"\xed\xb3\xa9.txt", r"images/photos/\xed\xb3\xa9.txt"),
        (b"a\nb\xff.png", r"images/photos/a\nb\xff.png"),
        (b"\xe9t\xe9/05.png", r"images/photos/\xe9t\xe9"),
    ],
    ids=["image", "caption", "lone surrogate", "line break", "folder"],
)
def test_a_name_that_is_not_utf8_is_shown_with_its_bytes(
    photos: Path, params: dict[str, Any], name: bytes, shown: str, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    place = os.fsencode(photos) + b"/" + name
    os.makedirs(os.path.dirname(place), exist_ok=True)
    Path(os.fsdecode(place)).write_bytes((photos / "05.png").read_bytes())
    params["reference"]["source"] = str(PHOTOS)
    Path("params.yaml").write_text(yaml.safe_dump(params))
    monkeypatch.setattr("sys.argv", ["reference"])
    with pytest.raises(SystemExit, match="2"):
        run_stage(reference.main)
    said = capfd.readouterr().err.strip().splitlines()[-1]
    assert said.startswith(f"error: {shown}")
    assert ": the name is not UTF-8; rename it, for instance with `convmv -r --notest -f latin1 -t utf8 ima" in said


def test_a_caption_is_found_whose_name_only_looks_the_same(photos: Path) -> None:
    # What copies from Windows and from macOS leave: capitals, and accents as characters of their own.
    names = {
        "upper.png": "upper.TXT",
        "caf\u00e9.png": "cafe\u0301.txt",
        "both.png": "both.txt",
        "Both.png": "BOTH.TXT",
    }
    for image, caption in names.items():
        photo(99).save(photos / image)
        (photos / caption).write_text(f"of {image}", "utf-8")
    found = {row["file"]: row["prompt"] for row in copied(44)}
    assert {name: found[name] for name in names} == {name: f"of {name}" for name in names}


def test_what_other_programs_put_beside_the_images_is_left_out(photos: Path) -> None:
    for name in ("@eaDir/00.png/SYNOPHOTO_THUMB_M.jpg", "__MACOSX/b.png", "._c.png", "folder.png/d.txt"):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        photo(99).save(photos / name, "PNG")
    assert {len(Path(row["file"]).stem) for row in copied()} == {2}
    with pytest.raises(InputError, match="holds 40 images"):
        copied(41)


def test_a_folder_whose_name_only_looks_the_same_is_named(photos: Path) -> None:
    there, asked = photos.parent / "Fotos e\u0301", photos.parent / "Fotos \u00e9"
    there.mkdir()
    with pytest.raises(
        InputError, match=r"holds 'Fotos e\\u0301', and the name asked for is 'Fotos \\xe9': rename one"
    ):
        copy_images(asked, photos.parent / "out", 1, seed=0)
    with pytest.raises(InputError, match=r"holds 'Fotos e\\u0301'"):
        copy_images(asked / "inner", photos.parent / "out", 1, seed=0)
    with pytest.raises(InputError, match="is not a folder; put images there"):
        copy_images(photos.parent / "nothing", photos.parent / "out", 1, seed=0)


def test_a_name_with_a_line_break_is_a_name(photos: Path) -> None:
    (photos / "05.png").rename(photos / "a\nb.png")
    (photos / "a\nb.txt").write_text("a caption")
    row = {row["file"]: row for row in copied()}["a\nb.png"]
    assert row["prompt"] == "a caption"
    (photos / "a\nb.txt").write_bytes(b"\xff")
    with pytest.raises(InputError, match=r"photos/a\\nb\.txt is not a readable UTF-8 text \(.*\); save it as such$"):
        copied()
    cut(photos / "a\nb.png")
    (photos / "a\nb.txt").unlink()
    with pytest.raises(
        InputError, match=r"photos: a\\nb\.png is not a readable image \(.*\); replace it or take it out$"
    ):
        copied()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: (p / "00.png").unlink(), r"images/photos holds 39 images .*, reference\.images is 40; add"),
        (lambda p: cut(p / "05.png"), r"photos: 05\.png is not a readable image .*; replace it or take it out"),
        (lambda p: (p / "05.png").write_bytes(b"GIF89a"), r"05\.png is not a readable image"),
        (lambda p: photo(1, (24, 32)).save(p / "05.png"), r"png has \d+x\d+ pixels, the first image \d+x\d+; crop"),
        (lambda p: (p / "04.txt").write_bytes(b"\xff\xfe\xff"), r"04\.txt is not a readable UTF-8 text"),
        (lambda p: (p / "41.TIF").write_bytes(b""), r"photos: 41\.TIF is in a format that is not read \(\.png, "),
        (lambda p: [(p / f"4{k}.heic").write_bytes(b"") for k in range(3)], r"photos: 40\.heic \(and 2 more\) is in a"),
    ],
    ids=["few", "cut", "gif", "canvas", "caption", "tiff", "heic"],
)  # fmt: skip
def test_what_cannot_be_compared_with_is_named(photos: Path, change: Any, message: str) -> None:
    change(photos)
    with pytest.raises(InputError, match=message):
        copied()


def test_a_folder_that_is_not_there_or_that_dvc_does_not_follow_is_named(photos: Path) -> None:
    with pytest.raises(
        InputError, match=r"images/none is not a folder; put images there .* reference\.source=tinybooru"
    ):
        copy_images(Path("images/none"), REFERENCE_SET, 10, 0)
    photos.rename("elsewhere")
    photos.symlink_to(photos.parent.parent / "elsewhere")
    with pytest.raises(InputError, match=r"images/photos is a link to a folder, in which DVC sees no change; link its"):
        copied()


@pytest.mark.parametrize("source", ["photos", "data/reference", "models", "/srv/photos", "images/../data/reference"])
def test_a_reference_lies_where_dvc_sees_it_change(params: dict[str, Any], source: str) -> None:
    params["reference"]["source"] = source
    with pytest.raises(InputError, match=r"reference\.source is '.*': must (lie in images/|be a path inside)"):
        parse_study(params, "test")
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert "images" in stages["reference"]["deps"]


def test_the_stage_copies_what_params_name_and_deletes_what_a_killed_write_left(
    photos: Path, params: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["reference"])
    reference.main()
    assert read_set(REFERENCE_SET)["image_id"][0].as_py().startswith("tinybooru-")
    left = REFERENCE_SET / ".part-00000.parquet.12.tmp"
    left.write_bytes(b"half")
    params["reference"]["source"] = str(PHOTOS)
    Path("params.yaml").write_text(yaml.safe_dump(params))
    reference.main()
    assert "reference: 32 real images, from images/photos, in 2 shards" in capsys.readouterr().out
    assert not left.exists()
    assert set(REFERENCE_SET.iterdir()) == set(shard_paths(REFERENCE_SET))
    # What comes after reads the set as any other.
    study = load_study()
    settings, path = study.features.extractors["pyramid"], Path("data/features") / REFERENCE / "p.safetensors"
    assert refresh([Wanted(REFERENCE_SET, "pyramid", settings, path)], study.executor) == [True]


def composed(model: dict[str, Any] | None, source: str | None, params: dict[str, Any]) -> Study:
    content = json.loads(json.dumps(params))
    if model is not None:
        content["model"] = model
    if source is not None:
        content["reference"]["source"] = source
    return parse_study(content, "test")


SD = {"name": "sd", "main": "models/sd", "guide": "models/sd_guide"}


def test_images_of_another_world_than_the_references_are_said_to_be(params: dict[str, Any]) -> None:
    assert composed(None, None, params).reference_caution == ""
    assert composed(SD, str(PHOTOS), params).reference_caution == ""
    assert "networks of model sd are not tinybooru's" in composed(SD, None, params).reference_caution


@pytest.mark.parametrize(("source", "told"), [("tinybooru", True), ("images/photos", False)])
def test_composing_warns_where_the_reference_is_of_another_world(
    source: str, told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["compose", "model=sd_v1_5", f"reference.source={source}"])
    compose.main()
    said = capsys.readouterr().err
    assert ("warning: The networks of model sd_v1_5 are not tinybooru's" in said) == told
    assert ("take reference.source=images/<name>" in said) == told


@pytest.mark.parametrize(
    ("model", "source", "title"),
    [
        (None, None, "64x64 drawings of the embedded world tinybooru"),
        (SD, None, "64x64 drawings of the embedded world tinybooru"),
        (SD, "images/photos", "from images/photos"),
    ],
)
def test_the_card_says_what_the_images_are_compared_with(
    model: dict[str, Any] | None, source: str | None, title: str, params: dict[str, Any]
) -> None:
    from small_study import NO_LABELS, comparison

    from pipeline.results.comparison import Comparison

    study = composed(model, source, params)
    found = Comparison.model_validate(comparison())
    contents = Contents(dict.fromkeys(study.arms, 16), 0, 1.0, [], 0, 0, 0, 0)
    card = write_card(study, found, NO_LABELS, contents)
    assert f"32 real images to compare with ({title})." in card.replace("\\", "")
    assert ("say nothing about how good these images are" in card) == (model is not None and source is None)


def test_what_a_killed_write_left_is_no_part_of_an_output(tmp_path: Path) -> None:
    def dvc(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "dvc", *command], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return done.stdout

    dvc("init", "--no-scm", "-q")
    shutil.copy(ROOT / ".dvcignore", tmp_path)
    stages = {
        "a": {"cmd": "mkdir -p out && echo 1 > out/part-00000.parquet", "outs": [{"out": {"persist": True}}]},
        "b": {"cmd": "cp out/part-00000.parquet copy", "deps": ["out"], "outs": ["copy"]},
    }
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    dvc("repro", "-q")
    before, lock = folder_md5(tmp_path / "out"), (tmp_path / "dvc.lock").read_text()
    assert before in lock
    (tmp_path / "out/.part-00000.parquet.12.tmp").write_bytes(b"half")
    assert json.loads(dvc("status", "--json")) == {}
    dvc("commit", "-f", "-q")
    assert (tmp_path / "dvc.lock").read_text() == lock
    assert folder_md5(tmp_path / "out") == before
