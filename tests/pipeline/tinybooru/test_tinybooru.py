"""The embedded world: deterministic, truthfully tagged, its splits apart, its flaws real."""

import hashlib
from itertools import islice

import numpy as np
import pytest
from dicebear import Avatar
from PIL import ImageChops, ImageStat

from pipeline.errors import InputError
from pipeline.storage.shards import encode_png, read_set, shard_paths
from pipeline.tinybooru import flaws
from pipeline.tinybooru.build import build, plans
from pipeline.tinybooru.colours import BACKGROUNDS, HAIR_COLOURS
from pipeline.tinybooru.figures import GREETING, PAPERDOLL
from pipeline.tinybooru.image import SPLITS, draw, plan
from pipeline.tinybooru.styles import KINDS, OPEN_LICENCES, STYLES, credits

PLANS = [plan(0, index) for index in range(3000)]


def pixels(image):
    return np.asarray(image, dtype=float)


def test_ten_styles_and_more_over_four_kinds():
    assert len(STYLES) >= 10
    assert {style.kind for style in STYLES} == set(KINDS)


def test_every_style_is_under_an_open_licence_and_credited():
    found = credits()
    assert [credit.style for credit in found] == [style.name for style in STYLES if not style.own]
    assert {credit.licence for credit in found} <= set(OPEN_LICENCES)
    assert all(credit.creator and credit.source.startswith("https://") for credit in found)


def test_an_image_is_a_function_of_seed_and_index():
    for planned in PLANS[:20]:
        assert plan(0, planned.index) == planned
        assert encode_png(draw(planned, 64)) == encode_png(draw(plan(0, planned.index), 64))
    assert plan(1, 0) != plan(0, 0)


def test_no_image_is_in_two_splits():
    digests = {split: set() for split in SPLITS}
    for split in SPLITS:
        for planned in islice(plans(split, 0), 200):
            digests[split].add(hashlib.sha256(draw(planned, 64).tobytes()).hexdigest())
    assert not digests["train"] & digests["validation"]
    assert not digests["train"] & digests["reference"]
    assert not digests["validation"] & digests["reference"]


def test_no_combination_of_parts_and_colours_is_in_two_splits():
    seen = {}
    for planned in PLANS:
        if planned.kind in ("person", "object") and not planned.flaws:
            key = (planned.style, str(sorted(planned.options.items())))
            assert seen.setdefault(key, planned.split) == planned.split


def test_tags_are_what_dicebear_drew():
    checked = 0
    for planned in [p for p in PLANS[:500] if p.style not in (GREETING, PAPERDOLL)]:
        style = flaws.deformed_style(planned.style, planned.deformations)
        drawn = Avatar(style, {"seed": "x", **planned.options}).to_json()["options"]
        for colour, value in BACKGROUNDS.items():
            assert (f"{colour} background" in planned.tags) == (drawn["backgroundColor"] == [f"#{value}"])
        if planned.kind == "person":
            for colour, value in HAIR_COLOURS.items():
                assert (f"{colour} hair" in planned.tags) == (drawn.get("hairColor") == [f"#{value}"])
            worn = {drawn.get("glassesVariant"), drawn.get("accessoriesVariant")} - {None}
            painted = planned.options.get("eyesVariant") in (["glasses"], ["sunglasses"])
            assert ({"glasses", "sunglasses"} & set(planned.tags) != set()) == bool(worn or painted)
            checked += 1
    assert checked > 100


def test_tags_name_kind_style_quality_and_flaws():
    for planned in PLANS[:300]:
        assert planned.tags[0] == {"person": "1person"}.get(planned.kind, planned.kind)
        assert f"style:{planned.style}" in planned.tags
        assert [tag for tag in planned.tags if tag in flaws.QUALITIES] == [planned.quality]
        assert [tag for tag in planned.tags if tag in flaws.FLAWS] == list(planned.flaws)
        assert (set(flaws.STRUCTURE_FLAWS) & set(planned.tags) != set()) == planned.malformed


def test_bad_anatomy_really_moves_what_is_drawn():
    malformed = [p for p in PLANS if p.malformed and p.flaws == (flaws.BAD_ANATOMY,)][:60]
    for planned in malformed:
        healthy = type(planned)(**{**vars(planned), "deformations": ()})
        difference = np.abs(pixels(draw(planned, 64)) - pixels(draw(healthy, 64))).max(axis=2)
        assert (difference > 20).sum() >= 12, f"{planned.style} {planned.deformations} cannot be seen"


@pytest.mark.parametrize("flaw", flaws.IMAGE_FLAWS)
def test_every_image_flaw_changes_the_image_and_keeps_the_canvas(flaw):
    for planned in [p for p in PLANS if not p.flaws][:10]:
        clean = draw(planned, 64)
        flawed = flaws.apply(clean.copy(), (flaw,), np.random.default_rng(0))
        assert flawed.size == clean.size
        assert flawed.mode == "RGB"
        assert np.abs(pixels(flawed) - pixels(clean)).mean() > 0.5


def test_quality_is_visible_as_saturation():
    planned = next(p for p in PLANS if not p.flaws and p.kind == "person")
    image = draw(type(planned)(**{**vars(planned), "quality": "best quality"}), 64)
    saturation = [ImageStat.Stat(flaws.finish(image, quality).convert("HSV")).mean[1] for quality in flaws.QUALITIES]
    assert saturation == sorted(saturation, reverse=True)


def test_flawed_images_are_never_called_best():
    assert not [p for p in PLANS if p.flaws and p.quality in ("masterpiece", "best quality")]
    assert all(not p.flaws and p.quality in flaws.GOOD_QUALITIES for p in islice(plans("reference", 0, True), 50))


def test_build_is_repeatable_and_loads_with_datasets(tmp_path):
    from datasets import load_dataset

    build(tmp_path / "a", "reference", 40, seed=0)
    before = [path.read_bytes() for path in shard_paths(tmp_path / "a")]
    stamps = [path.stat().st_mtime_ns for path in shard_paths(tmp_path / "a")]
    build(tmp_path / "a", "reference", 40, seed=0)
    assert [path.stat().st_mtime_ns for path in shard_paths(tmp_path / "a")] == stamps
    build(tmp_path / "b", "reference", 40, seed=0)
    assert [path.read_bytes() for path in shard_paths(tmp_path / "b")] == before
    files = str(tmp_path / "a" / "*.parquet")
    loaded = load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded[0]["image"].size == (64, 64)
    assert loaded[0]["prompt"] == ", ".join(loaded[0]["tags"])


def test_a_smaller_build_leaves_no_shard_of_a_larger_one(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.tinybooru.build.SHARD_IMAGES", 8)
    build(tmp_path, "reference", 20, seed=0)
    build(tmp_path, "reference", 8, seed=0)
    assert len(read_set(tmp_path)) == 8


def test_no_images_at_all_is_an_error(tmp_path):
    with pytest.raises(InputError, match="images is 0; it must be at least 1"):
        build(tmp_path, "train", 0, seed=0)


def test_images_differ():
    images = [draw(p, 64) for p in PLANS[:30]]
    assert all(ImageChops.difference(a, b).getbbox() for k, a in enumerate(images) for b in images[:k])
