"""Interrogation of held-out images of the embedded world, whose tags are known."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
import torch
import yaml
from compositions import composed
from repository_copy import ROOT

from eval.features.clip import Clip
from eval.features.extractor import embed_images
from eval.interrogation.accuracy import accuracy, calibration_error, shown_tags
from eval.interrogation.asked_images import asked_images
from eval.interrogation.interrogate import Interrogator, interrogator
from eval.interrogation.reference_images import reference_captions, reference_vectors, tag_reader
from eval.interrogation.word_reader import FEWEST, calibrated, named_once, word_reader
from pipeline.errors import InputError
from pipeline.layout import REFERENCE_SET
from pipeline.storage.shards import write_shard
from pipeline.study.study import Study, parse_study
from pipeline.tinybooru.build import CANVAS, FEATURES, plans, row
from pipeline.tinybooru.image import Plan, draw

REFERENCE, HELD_OUT = 220, 60
CPU = torch.device("cpu")
BACKGROUNDS = [f"{colour} background" for colour in ("white", "gray", "blue", "green", "yellow", "orange", "purple")]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project with the embedded CLIP and a small reference set, as working directory."""
    folder = tmp_path_factory.mktemp("world")
    for name in ("conf", "models"):
        (folder / name).symlink_to(ROOT / name)
    content = composed()
    content["reference"]["images"] = 2 * content["generate"]["images"]
    (folder / "params.yaml").write_text(yaml.safe_dump(content))
    rows = [row(one, draw(one, CANVAS)) for one in islice(plans("reference", 0, good_only=True), REFERENCE)]
    columns = {name: [own[name] for own in rows] for name in FEATURES}
    write_shard(folder / REFERENCE_SET / "part-00000.parquet", columns, FEATURES, "world")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def study(world: Path) -> Study:
    return parse_study(yaml.safe_load((world / "params.yaml").read_text()), "test")


@pytest.fixture(scope="module")
def reads(study: Study) -> Interrogator:
    """What reads the tags of the reference set."""
    return interrogator(study, CPU)


@pytest.fixture(scope="module")
def held_out() -> list[Plan]:
    return list(islice(plans("validation", 0, good_only=True), HELD_OUT))


@pytest.fixture(scope="module")
def photos(world: Path, held_out: list[Plan]) -> Path:
    """The held-out images as a folder of files."""
    folder = world / "photos"
    folder.mkdir()
    for k, planned in enumerate(held_out):
        draw(planned, CANVAS).save(folder / f"{k:03d}.png")
    return folder


def test_tags_of_held_out_images_are_read_and_a_chance_is_how_often_its_tag_is_shown(
    reads: Interrogator, study: Study, photos: Path, held_out: list[Plan]
) -> None:
    found = reads(asked_images(str(photos), study))
    assert [image.name for image, _ in found] == [f"{k:03d}.png" for k in range(HELD_OUT)]
    tags = reads.readers[0].tags
    assert len(tags) > 12
    chances = torch.tensor([[own[tag] for tag in tags] for _, own in found])
    measured = accuracy(chances, shown_tags(tags, [planned.tags for planned in held_out]))
    assert measured.precision.value > 0.85
    assert measured.recall.value > 0.75
    assert measured.calibration_error < 0.03
    assert reads.said[0].startswith(f"{len(tags)} of the ")


def test_shares_of_tags_have_intervals_over_images() -> None:
    shown = torch.tensor([[True, False], [True, True], [False, True], [True, True]])
    chances = torch.tensor([[0.9, 0.6], [0.8, 0.2], [0.1, 0.7], [0.9, 0.9]])
    measured = accuracy(chances, shown)
    assert measured.precision.value == pytest.approx(5 / 6)
    assert measured.recall.value == pytest.approx(5 / 6)
    assert 0 < measured.precision.low < 5 / 6 < measured.precision.high == 1
    certain = accuracy(shown.double(), shown)
    assert (certain.precision.low, certain.precision.value, certain.precision.high) == (1, 1, 1)
    with pytest.raises(InputError, match="a share of no tags has no value"):
        accuracy(torch.zeros(4, 2), shown)


@pytest.fixture(scope="module")
def clip(reads: Interrogator) -> Clip:
    assert isinstance(reads.extractor, Clip)
    return reads.extractor


def test_calibrated_words_are_less_sure_and_the_likeliest_stays(
    clip: Clip, held_out: list[Plan], photos: Path, study: Study
) -> None:
    plain = word_reader(BACKGROUNDS, clip)
    ours = calibrated(plain, reference_vectors("clip", clip), reference_captions())
    assert plain.calibrated_on == 0
    assert ours.calibrated_on >= FEWEST
    vectors = embed_images(clip, (image for _, image in asked_images(str(photos), study).opened()))
    shown = shown_tags(BACKGROUNDS, [planned.tags for planned in held_out])
    one = shown.sum(1) == 1
    errors = []
    for reader in (plain, ours):
        chances = reader(vectors)
        torch.testing.assert_close(chances.sum(1), torch.ones(HELD_OUT, dtype=torch.float64))
        assert torch.equal(chances.argmax(1), plain(vectors).argmax(1))
        chance, first = chances[one].max(1)
        errors.append(calibration_error(chance, shown[one][torch.arange(int(one.sum())), first]))
    assert errors[1] < errors[0] / 2


def test_words_that_captions_do_not_name_keep_the_scale_of_clips_training(clip: Clip) -> None:
    reader = word_reader(["a lighthouse", "a submarine"], clip)
    assert calibrated(reader, torch.randn(200, 8), ["1girl, smile"] * 200) == reader
    assert reader.scale == clip.logit_scale


def test_a_caption_counts_for_calibration_where_it_names_exactly_one_word() -> None:
    captions = ["red hair, smile", "smile", "red hair, blue hair", "a red hair", "", "blue hair"]
    assert named_once(["blue hair", "red hair"], captions) == {0: 1, 5: 0}


def test_words_of_two_files_are_two_questions(study: Study, world: Path, photos: Path) -> None:
    Path("colours.txt").write_text("\n".join(BACKGROUNDS))
    Path("kinds.txt").write_text("\ufeff1person\r\n\r\n  object \nscenery\n1person\n", "utf-8")
    both = interrogator(study, CPU, [Path("colours.txt"), Path("kinds.txt")])
    ((image, chances),) = both(asked_images(str(photos / "000.png"), study))
    assert image.name == "000.png"
    assert sum(chances[word] for word in ("1person", "object", "scenery")) == pytest.approx(1)
    assert sum(chances[word] for word in BACKGROUNDS) == pytest.approx(1)
    assert "calibrated on" in both.said[0]
    Path("again.txt").write_text("scenery\npattern\n")
    with pytest.raises(InputError, match=r"again.txt and kinds.txt both have the word 'scenery'; take it out of one"):
        interrogator(study, CPU, [Path("kinds.txt"), Path("again.txt")])


def test_words_need_an_extractor_that_reads_them(study: Study, world: Path) -> None:
    Path("two.txt").write_text("a cat\na dog\n")
    with pytest.raises(
        InputError, match=r"--words needs a CLIP, and extractor pyramid reads no words; name one of conf"
    ):
        interrogator(study, CPU, [Path("two.txt")], "pyramid")
    with pytest.raises(
        InputError, match=r"clip_vit_l_14/open_clip_config.json is missing; get it with `hf download timm"
    ):
        interrogator(study, CPU, [Path("two.txt")], "clip_vit_l_14")
    with pytest.raises(InputError, match="clip_vit_l_14"):
        interrogator(study, CPU, [], "clip_vit_l_15")


def test_without_captions_that_list_tags_there_is_nothing_to_read(
    clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"data/reference has no images to learn tags from; `guidedrift run` makes it"):
        tag_reader("clip", clip, 0)
    rows = [{**row(one, draw(one, CANVAS)), "prompt": "It is a drawing."} for one in islice(plans("train", 0), 3)]
    write_shard(
        REFERENCE_SET / "part-00000.parquet", {key: [own[key] for own in rows] for key in FEATURES}, FEATURES, "prose"
    )
    with pytest.raises(InputError, match=r"fewer than two of the 1 tags in the captions of data/reference can be read"):
        tag_reader("clip", clip, 0)


def test_the_calibration_error_is_how_far_chances_lie_from_shares() -> None:
    often = torch.tensor([True] * 6 + [False] * 4)
    assert calibration_error(torch.full((10,), 0.8), often) == pytest.approx(0.2)
    assert calibration_error(torch.full((10,), 0.6), often) == pytest.approx(0, abs=1e-6)
    # Errors of two bins do not cancel.
    assert calibration_error(torch.tensor([0.95, 0.05]), torch.tensor([False, True])) == pytest.approx(0.95)
    assert calibration_error(torch.tensor([1.0, 0.0]), torch.tensor([True, False])) == 0
