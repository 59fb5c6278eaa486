"""What belongs to arms that a study does not have leaves the outputs and comes back."""

from pathlib import Path

from pipeline.storage.set_aside import set_aside


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*")}


def test_what_is_not_wanted_waits_aside_and_comes_back_as_it_was(tmp_path: Path) -> None:
    sets, aside = tmp_path / "sets", tmp_path / "aside"
    for arm in ("cfg", "negative"):
        (sets / arm).mkdir(parents=True)
        (sets / arm / "part-00000.parquet").write_text(arm)
    assert set_aside(sets, ["cfg"], aside) == ["negative"]
    assert (names(sets), names(aside / "sets")) == ({"cfg"}, {"negative"})
    assert set_aside(sets, ["cfg", "negative", "new"], aside) == ["negative"]
    assert (names(sets), names(aside / "sets")) == ({"cfg", "negative"}, set())
    assert (sets / "negative/part-00000.parquet").read_text() == "negative"


def test_what_is_there_is_kept_and_what_is_newer_replaces_what_waits(tmp_path: Path) -> None:
    scores, aside = tmp_path / "scores", tmp_path / "aside"
    for content in ("old", "new"):
        scores.mkdir(exist_ok=True)
        (scores / "cfg.parquet").write_text(content)
        set_aside(scores, [], aside)
    (scores / "cfg.parquet").write_text("newest")
    assert set_aside(scores, ["cfg.parquet"], aside) == []
    assert (scores / "cfg.parquet").read_text() == "newest"
    assert (aside / "scores/cfg.parquet").read_text() == "new"


def test_what_a_killed_write_has_left_is_deleted(tmp_path: Path) -> None:
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores/.cfg.parquet.1.tmp").write_text("half")
    set_aside(tmp_path / "scores", [], tmp_path / "aside")
    assert not (tmp_path / "aside").exists()
    assert names(tmp_path / "scores") == set()


def test_nothing_is_there_yet(tmp_path: Path) -> None:
    assert set_aside(tmp_path / "sets", ["cfg"], tmp_path / "aside") == []
