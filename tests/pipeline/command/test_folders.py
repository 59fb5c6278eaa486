"""Two folders and a third, checked and counted before anything is computed."""

from pathlib import Path

import pytest
from external_images import picture, save_folder

from pipeline.command.folders import Folders, prepared
from pipeline.errors import InputError


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders outside of a project, in which the command runs: a and b of 12 images each, real of 24."""
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    project.mkdir()
    monkeypatch.chdir(project)
    monkeypatch.setenv("GUIDEDRIFT_CALLED_FROM", str(elsewhere))
    for name, count, first in (("a", 12, 0), ("b", 12, 0), ("real", 24, 100)):
        save_folder(elsewhere / name, count, first)
    return elsewhere


def refusal(*folders: str) -> str:
    with pytest.raises(InputError) as error:
        prepared(*folders)
    return str(error.value)


def test_folders_elsewhere_are_linked_and_never_changed(outside: Path) -> None:
    found = prepared("a", "b", "real")
    assert found == Folders(
        "images/compared/a", "images/compared/b", "images/compared/reference", 12, 24, (), ("a", "b")
    )
    links = sorted(Path("images/compared/a").iterdir())
    assert [link.name for link in links] == [f"{k:03d}.png" for k in range(12)]
    assert all(link.is_symlink() and link.resolve() == outside / "a" / link.name for link in links)
    (outside / "a" / "000.png").unlink()
    (outside / "a" / "001.png").rename(outside / "a" / "new.png")
    prepared("a", "b", "real")
    assert sorted(link.name for link in Path("images/compared/a").iterdir()) == [
        *(f"{k:03d}.png" for k in range(2, 12)),
        "new.png",
    ]


def test_folders_that_dvc_watches_stay_where_they_are(outside: Path) -> None:
    save_folder(Path("images/mine"), 12)
    assert prepared(str(Path("images/mine").resolve()), "b", "real").a == "images/mine"


def test_the_request_is_the_study_of_these_folders(outside: Path) -> None:
    request = prepared("a", "b", "real").request(("metrics.seed=1",))
    assert request.study == "compare_folders"
    assert 'arms.a.from_folder.folder="images/compared/a"' in request.overrides
    assert {"generate.images=12", "reference.images=24"} <= set(request.overrides)
    assert request.overrides[-1] == "metrics.seed=1"


def test_with_three_images_it_says_how_many_it_needs(outside: Path) -> None:
    save_folder(outside / "few", 3)
    assert refusal("few", "b", "real") == (
        "too few images: A holds 3, B holds 12, REFERENCE holds 24; a comparison needs at least 10 in A, 10 in B and "
        "20 in REFERENCE (intervals that decide something need 64, 64 and 128): add images"
    )


def test_a_reference_that_is_too_small_for_all_says_how_many_would_do(outside: Path) -> None:
    save_folder(outside / "many", 40)
    save_folder(outside / "more", 30)
    found = prepared("many", "more", "real")
    assert found.images == 12
    assert found.said == (
        "A holds 40, B holds 30, REFERENCE holds 24: 12 of A and of B are compared, as two disjoint halves of "
        "REFERENCE have to be as large; 60 real images would do for all",
    )


def test_pairs_are_taken_where_they_are_most_of_the_images(outside: Path) -> None:
    save_folder(outside / "c", 11)
    picture(3).save(outside / "c" / "other.png")
    found = prepared("a", "c", "real")
    assert (found.images, found.said) == (
        11,
        ("11 images of A and B are pairs, by their names or seeds: these are compared",),
    )
    assert prepared("a", "c", "real", 10).images == 10


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        (("nowhere", "b", "real"), "A nowhere is not there; name a folder of images (.png, .jpg, .jpeg, .jfif, .webp)"),
        (("a", "a/000.png", "real"), "B a/000.png is a file, not a folder; name a folder of images"),
        (("a", "empty", "real"), "holds no images (.png, .jpg, .jpeg, .jfif, .webp); name the folder they lie in"),
        (("a", "../elsewhere/a", "real"), "A and B are the same folder"),
        (("a", "b", "b"), "B and REFERENCE are the same folder"),
        (("a", "..", "real"), "lies in B"),
        (("a", "b", ""), "REFERENCE is empty; name a folder of images"),
    ],
)
def test_a_folder_that_cannot_be_compared_is_named(outside: Path, folders: tuple[str, str, str], said: str) -> None:
    (outside / "empty").mkdir()
    assert said in refusal(*folders)


def test_a_file_that_is_no_image_is_named(outside: Path) -> None:
    (outside / "b" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    assert "broken.png is not a readable image" in refusal("a", "b", "real")
    (outside / "b" / "broken.png").unlink()
    (outside / "real" / "scan.tiff").write_bytes(b"II*")
    assert "scan.tiff is in a format that is not read" in refusal("a", "b", "real")


def test_someones_own_files_in_the_way_of_links_stay(outside: Path) -> None:
    own = Path("images/compared/a/mine.png")
    own.parent.mkdir(parents=True)
    picture().save(own)
    assert f"{own} is in the way of links" in refusal("a", "b", "real")
    assert own.is_file()
