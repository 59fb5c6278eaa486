"""Hands over training: which stages there are, what is kept of each, and what the page says of it."""

from pathlib import Path

import pytest
from repository_copy import ROOT

from docs.hands.kept import KeptArm, KeptHands, kept, load_all, path_of
from docs.hands.page import decided, over_seeds, ratios, sentences, write_page
from docs.hands.stages import FAMILIES, FOLDERS, Stage, available, prepare, shipped, stages_of
from docs.kept_results import KEPT as DEFAULT
from pipeline.errors import InputError
from pipeline.results.comparison import load_comparison
from pipeline.results.interval import Interval
from pipeline.study.study import load_study


def around(value: float, reach: float = 0.05) -> Interval:
    return Interval(value, value - reach, value + reach, 64)


def arm(method: str, wrong: float, fd: float, against: float | None) -> KeptArm:
    scores = {name: around(0.5) for name in ("recall", "vendi", "clip_score", "aesthetic")}
    return KeptArm(
        method=method,
        scale=2.0,
        description=method,
        scores={"malformed": around(wrong), **scores},
        fd={"elsewhere": around(fd), "clip": around(2 * fd)},
        against={} if against is None else {"malformed": around(against)},
        shift={} if against is None else {"elsewhere": around(1.0), "clip": around(2.0)},
    )


def hands(stage: Stage, negative: float = -0.2, autoguidance: float = -0.01) -> KeptHands:
    return KeptHands(
        family=stage.family,
        seed=stage.seed,
        step=stage.step,
        guide_step=stage.guide_step,
        same_size=stage.same_size,
        networks={"main": "abc", "guide": "def"},
        images=64,
        level=0.95,
        floor={"elsewhere": around(0.5), "clip": around(1.0)},
        arms={
            "unguided": arm("unguided", 0.5, 4.0, None),
            "cfg": arm("cfg", 0.4, 3.0, -0.1),
            "cfg_low": arm("cfg", 0.4, 2.0, -0.1),
            "negative_hands": arm("negative", 0.3, 4.0, negative),
            "autoguidance": arm("autoguidance", 0.49, 1.0, autoguidance),
            "composed": arm("mix", 0.45, 1.5, -0.05),
        },
    )


def test_stages_are_the_main_networks_and_the_guides_of_the_finished_one() -> None:
    names = ["unet-main-0-500", "unet-main-0-2000", "unet-main-0-5000", "unet-small-0-1500", "unet-small-0-500"]
    found = stages_of([f"{name}.safetensors" for name in [*names, "flow-main-0-500", "text-0", "unet-main-1-500"]])
    assert found == [
        Stage("unet", 0, 500, 1500),
        Stage("unet", 0, 2000, 1500),
        Stage("unet", 0, 5000, 1500),
        Stage("unet", 0, 5000, 500),
        Stage("unet", 0, 5000, 500, same_size=True),
        Stage("unet", 0, 5000, 2000, same_size=True),
    ], "a main network without a guide is no stage"
    assert found[-1].parts == ("unet-main-0-5000", "unet-main-0-2000", "text-0")
    assert Stage("flow", 1, 500, 500).overrides[:2] == ("model=tinybooru_flow", "sampler=euler")


def test_the_shipped_networks_are_stages_that_need_no_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {stage.family: stage for stage in shipped()}
    assert set(found) == set(FAMILIES)
    assert set(found.values()) <= set(available())
    main, guide = found["flow"].overrides[2:]
    assert (main, guide) == ("model.main=models/tinybooru/flow/main", "model.guide=models/tinybooru/flow/guide")
    prepare(found["unet"])
    assert not (FOLDERS / found["unet"].name).exists()

    monkeypatch.chdir(tmp_path)
    shipped.cache_clear()
    with pytest.raises(InputError, match=r"models/tinybooru/training\.json does not say how .*; `make train` does"):
        shipped()


def test_the_page_says_what_the_intervals_decide(tmp_path: Path) -> None:
    stage = Stage("unet", 0, 500, 1500)
    kept = hands(stage)
    negative, autoguidance = sentences([kept], kept)
    assert negative.said.startswith("A negative prompt against wrong hands fixes hands: ")
    assert autoguidance.said.startswith("Autoguidance cannot be told to change hands: ")
    assert negative.over_seeds == "one training seed"
    assert decided(around(0.2)) == "spoils"
    assert ratios(kept) == {
        "autoguidance": {"elsewhere": 0.5, "clip": 0.5},
        "composed": {"elsewhere": 0.75, "clip": 0.75},
    }

    path_of(stage, tmp_path).parent.mkdir(parents=True)
    for one in (kept, hands(Stage("flow", 0, 500, 1500)), hands(Stage("unet", 0, 2000, 1500))):
        path_of(one.stage, tmp_path).write_bytes(one.to_json())
    (tmp_path / "docs").mkdir(exist_ok=True)
    write_page(load_all(tmp_path), tmp_path)
    page, figure = ((tmp_path / name).read_text("utf-8") for name in ("docs/hands.md", "docs/hands.svg"))
    assert "| UNet | 0 | 2000 steps | smaller, 1500 steps | 50 % (45\N{EN DASH}55) | A negative prompt against" in page
    assert "| UNet | 0 | 500 steps | smaller, 1500 steps | autoguidance | 0.50 | 0.50 |" in page
    assert "flow transformer" in figure
    assert "negative prompt: wrong hands" in figure


def test_numbers_of_a_run_are_kept_by_arm_and_space() -> None:
    study, compared = (
        load_study(ROOT / "params.yaml"),
        load_comparison(ROOT / DEFAULT, load_study(ROOT / "params.yaml")),
    )
    found = kept(Stage("unet", 0, 500, 1500), study, compared)
    unguided, cfg = found.arms["unguided"], found.arms["cfg"]
    against = next(arm.against_baseline for arm in compared.arms if arm.arm == "cfg")
    assert against is not None
    assert unguided.against == unguided.shift == {}
    assert cfg.against["recall"] == against.spaces[found.primary].variety
    assert cfg.against["malformed"] == against.malformed
    assert cfg.shift[found.primary] == against.fd
    assert list(cfg.fd) == list(found.floor) == [space.name for space in compared.spaces]
    assert KeptHands.model_validate_json(found.to_json()).networks == found.networks


def test_several_seeds_have_an_interval_over_them() -> None:
    kept = [hands(Stage("unet", seed, 500, 1500), negative=change) for seed, change in enumerate((-0.1, -0.2, -0.3))]
    negative, _ = sentences(kept, kept[0])
    # Student's quantile with two degrees of freedom is 4.303: 0.1 / sqrt(3) times it is 0.248.
    assert negative.over_seeds == "\N{MINUS SIGN}20.0 points (\N{MINUS SIGN}44.8 to +4.8) over 3 seeds"
    assert over_seeds([0.1]) == "one training seed"


def test_what_is_not_measured_or_malformed_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no stage is measured yet; `python -m docs\.hands\.run` measures them"):
        write_page(load_all(tmp_path), tmp_path)
    path = path_of(Stage("unet", 0, 500, 1500), tmp_path)
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    with pytest.raises(InputError, match=r"unet-0-500-small-1500\.json: .*docs\.hands\.run"):
        load_all(tmp_path)
