"""Captions beside images, what is never overwritten, and what interrogation refuses."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from external_images import WEB_UI, picture, texts
from repository_copy import ROOT

from eval.interrogation.__main__ import said_of, shown
from eval.interrogation.asked_images import AskedImage, AskedImages, asked_images, check_caption_files
from eval.interrogation.captions import Written, caption_of, write_captions
from eval.interrogation.word_list import read_words
from pipeline.errors import InputError
from pipeline.external.folder_images import folder_images
from pipeline.layout import SETS
from pipeline.reference.source_folder import image_files, read_files
from pipeline.study.from_folder import FromFolder
from pipeline.study.study import Study, parse_study

CHANCES = {"hat": 0.7, "smile": 0.4, "1girl": 0.98, "solo": 0.98}


@pytest.fixture
def study(params: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """A study with an external arm; the working directory is an empty project."""
    monkeypatch.chdir(tmp_path)
    params["arms"]["forge"] = {"from_folder": "images/forge"}
    return parse_study(params, "test")


@pytest.fixture
def folder(study: Study) -> Path:
    """The external arm's folder: images without a prompt, with a caption, a blank one, and one in the metadata."""
    place = Path("images/forge")
    (place / "more").mkdir(parents=True)
    for k, name in enumerate(("bare.png", "told.png", "blank.jpg", "more/deep.webp")):
        picture(k).save(place / name)
    (place / "told.txt").write_text("a cat\n")
    (place / "blank.txt").write_text(" \n")
    picture(9).save(place / "web.png", pnginfo=texts(parameters=WEB_UI))
    return place


def captioned(asked: AskedImages, caption: str = "1girl, hat", overwrite: bool = False) -> Written:
    return write_captions([(image, caption) for image, _ in asked.opened()], overwrite)


def captions_in(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in sorted(folder.rglob("*.txt"))}


def test_a_caption_lists_the_tags_of_enough_chance_the_likeliest_first() -> None:
    assert caption_of(CHANCES, 0.5) == "1girl, solo, hat"
    assert caption_of(CHANCES, 0.99) == ""


def test_images_without_a_prompt_get_a_caption_and_the_others_keep_theirs(folder: Path, study: Study) -> None:
    asked = asked_images("forge", study)
    check_caption_files(asked)
    assert captioned(asked) == Written(written=3, kept=2)
    expected = dict.fromkeys(("bare.txt", "blank.txt", "more/deep.txt"), "1girl, hat\n")
    assert captions_in(folder) == {**expected, "told.txt": "a cat\n"}
    assert captioned(asked, "other words") == Written(kept=5)
    assert captions_in(folder) == {**expected, "told.txt": "a cat\n"}


def test_overwriting_says_how_many_captions_it_replaced(folder: Path, study: Study) -> None:
    written = captioned(asked_images("forge", study), overwrite=True)
    assert written == Written(written=5, replaced=1)
    assert said_of(written, 0.5) == "captions: 5 written (1 replaced)"
    assert set(captions_in(folder).values()) == {"1girl, hat\n"}


def test_what_is_written_is_the_prompt_of_an_external_arm_and_the_caption_of_a_reference_folder(
    folder: Path, study: Study
) -> None:
    captioned(asked_images("forge", study))
    prompts = {image.file: image.prompt for image in folder_images("forge", FromFolder(folder=str(folder)))}
    assert prompts["bare.png"] == prompts["more/deep.webp"] == "1girl, hat"
    assert prompts["told.png"] == "a cat"
    assert prompts["web.png"].startswith("a cat, (best:1.2)")
    read = {source.name: source.caption for source in read_files(folder, image_files(folder, "test"))}
    assert read["blank.jpg"] == "1girl, hat"


def test_an_image_without_any_likely_tag_gets_no_caption(folder: Path, study: Study) -> None:
    written = captioned(asked_images(str(folder / "bare.png"), study), "")
    assert written == Written(empty=1)
    assert said_of(written, 0.5) == "captions: 0 written; 1 empty, as no tag has a chance of 0.5"
    assert not (folder / "bare.txt").exists()


def test_one_image_alone_has_its_caption_beside_it(folder: Path, study: Study) -> None:
    assert captioned(asked_images(str(folder / "told.png"), study)) == Written(kept=1)
    assert captioned(asked_images(str(folder / "bare.png"), study)) == Written(written=1)
    assert (folder / "bare.txt").read_text() == "1girl, hat\n"


def test_tags_are_shown_without_what_steers_a_terminal() -> None:
    hostile = [(AskedImage("a\x1b[2J.png"), {"x\x1b[2J": 0.9, "y": 0.1})]
    assert shown(hostile, 0.5) == " 0.90  x\\x1b[2J\n 0.10  y"
    assert shown(hostile * 2, 0.5).splitlines()[0] == "a\\x1b[2J.png: x\\x1b[2J 0.90"
    assert shown([(AskedImage("a"), {"y": 0.1})] * 2, 0.5).splitlines()[0] == "a: no tag of chance 0.5"


def test_arms_are_asked_about_by_name(folder: Path, study: Study) -> None:
    (SETS / "cfg").mkdir(parents=True)
    (SETS / "cfg/part-00000.parquet").touch()
    assert asked_images("forge", study).folder == folder.resolve()
    with pytest.raises(
        InputError, match="is an image set, whose captions are its prompts; --captions writes text files"
    ):
        check_caption_files(AskedImages(SETS / "cfg"))
    with pytest.raises(InputError, match=r"part-00000.parquet"):
        list(AskedImages(SETS / "cfg").opened())


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (
            "nope.png",
            r"IMAGES nope.png does not exist; name an image, a folder of images, or one of the study: unguided",
        ),
        ("forgo", "IMAGES forgo does not exist; did you mean forge?"),
        ("negative", "IMAGES negative: data/sets/negative does not exist; `guidedrift run` makes it"),
        ("reference", "IMAGES reference: data/reference does not exist; `guidedrift run` makes it"),
        ("empty", r"IMAGES empty holds no images \(.png, .jpg"),
        ("text.png", "IMAGES text.png is not a readable image .it is not a PNG, JPEG or WebP image"),
        ("damaged", r"IMAGES .*damaged: cut.png is not a readable image"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_images_that_cannot_be_read_are_refused_before_anything_is_computed(
    study: Study, what: str, message: str
) -> None:
    for name in ("empty", "damaged"):
        Path(name).mkdir()
    Path("empty/notes.txt").write_text("no image")
    Path("text.png").write_text("no image")
    Path("damaged/cut.png").write_bytes(Path("images/forge/bare.png").read_bytes()[:20])
    with pytest.raises(InputError, match=message) as raised:
        asked_images(what, study)
    assert "\n" not in str(raised.value)


def test_an_image_whose_pixels_are_cut_is_named(folder: Path, study: Study) -> None:
    (folder / "bare.png").write_bytes((folder / "bare.png").read_bytes()[:-60])
    with pytest.raises(InputError, match=r"bare.png is not a readable image"):
        captioned(asked_images("forge", study))


def test_two_images_never_write_one_caption(folder: Path, study: Study) -> None:
    picture().save(folder / "bare.jpg")
    with pytest.raises(InputError, match=r"bare.jpg and bare.png would share the caption bare.txt; rename one of them"):
        check_caption_files(asked_images("forge", study))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "--words words.txt does not exist; put one word or phrase per line into it"),
        (b"", "--words words.txt holds no word; .* at least two"),
        (b"\n \n", "--words words.txt holds no word"),
        (b"a cat\na cat\n", "--words words.txt holds one word, a cat"),
        (b"caf\xe9\nbar\n", "--words words.txt is not a readable UTF-8 text"),
    ],
)
def test_a_list_of_words_that_cannot_be_used_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("words.txt").write_bytes(content)
    with pytest.raises(InputError, match=message) as raised:
        read_words(Path("words.txt"))
    assert "\n" not in str(raised.value)


def test_the_command_finds_files_where_it_is_called(tmp_path: Path) -> None:
    """From a folder of the project; the file is there, and is no image."""
    place = ROOT / "docs"
    done = subprocess.run(
        [sys.executable, "-c", "from pipeline.command.app import main; main()", "interrogate", "prompts.md"],
        cwd=place,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: IMAGES {place}/prompts.md is not a readable image (it is not a PNG, JPEG")
