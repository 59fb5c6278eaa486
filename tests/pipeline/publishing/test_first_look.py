"""The beginning of the card: the same seeds under every arm, and what was found in two sentences."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from small_study import ARMS, comparison, write_study

from pipeline.publishing.digits import in_two_digits
from pipeline.publishing.first_look import SEEDS, SIDE, finding, seed_grid
from pipeline.results.comparison import Comparison
from pipeline.results.interval import Interval
from pipeline.storage.contact_sheet import GAP

SHIFTS, CLOSER, FARTHER = "shifts the distribution", "closer to the reference set", "farther from the reference set"
OPEN = "undecided"


def compared(**said: tuple[float, str, str]) -> Comparison:
    """Guided arms by name, each with its shift and what is said of its shift and its distance."""
    content = comparison()
    baseline, guided = content["arms"][:2]
    arms: list[Any] = [baseline]
    for arm, (shift, _, _) in said.items():
        against = {
            **guided["against_baseline"],
            "fd": {"value": shift, "low": 0.9 * shift, "high": 1.1 * shift, "n": 9},
        }
        arms.append({**guided, "arm": arm, "against_baseline": against})
    verdicts = [
        {
            "arm": arm,
            "verdicts": [
                {"topic": topic, "verdict": verdict, "numbers": "", "decided": verdict != OPEN}
                for topic, verdict in (("Shift", shifts), ("Distance", distance))
            ],
        }
        for arm, (_, shifts, distance) in said.items()
    ]
    return Comparison(**{**content, "arms": arms, "verdicts": verdicts})


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            {"a": (0.001, OPEN, OPEN), "b": (0.002, OPEN, OPEN)},
            "No arm can be told apart from `unguided` by the distribution of its images. No arm is clearly closer to "
            "real images than `unguided`, or farther from them, in every feature space.",
        ),
        (
            {"a": (604.7, SHIFTS, FARTHER)},
            "`a` shifts the distribution of images from `unguided` (Fréchet distance 600 (540 to 670)). `a` is farther "
            "from real images than `unguided` in every feature space.",
        ),
        (
            {"a": (1, SHIFTS, CLOSER), "b": (12, SHIFTS, FARTHER), "c": (0.02, OPEN, CLOSER)},
            "`b` shifts the distribution of images most from `unguided` (Fréchet distance 12 (11 to 13)), `a` least "
            "(1.0 (0.9 to 1.1)); `c` cannot be told apart from it. `a` and `c` are closer to real images than "
            "`unguided` and `b` is farther from real images than `unguided` in every feature space.",
        ),
        (
            {"a": (2, SHIFTS, f"{CLOSER} (in 1 of 4 feature spaces)"), "b": (1, SHIFTS, CLOSER)},
            "`a` shifts the distribution of images most from `unguided` (Fréchet distance 2.0 (1.8 to 2.2)), `b` least "
            "(1.0 (0.9 to 1.1)). `b` is closer to real images than `unguided` in every feature space; for `a` the "
            "spaces differ or the numbers leave it open.",
        ),
    ],
    ids=["no effect", "huge effect", "several arms", "spaces that disagree"],
)
def test_the_finding_says_what_the_verdicts_say(said: dict[str, tuple[float, str, str]], expected: str) -> None:
    assert finding(compared(**said)) == expected


def test_arms_that_were_not_told_the_prompt_are_not_spoken_of() -> None:
    found = compared(a=(1, SHIFTS, CLOSER), untold=(50, SHIFTS, FARTHER), control=(40, SHIFTS, FARTHER))
    arms = [
        arm.model_copy(update={"untold": {"prompt": "empty"}, "control": {"control_of": "a"}}.get(arm.arm, {}))
        for arm in found.arms
    ]
    said = finding(found.model_copy(update={"arms": arms}))
    assert said.startswith("`a` shifts the distribution of images from `unguided` (")
    assert "untold" not in said
    assert "control" not in said


def test_where_nothing_was_asked_nothing_is_found() -> None:
    assert finding(Comparison(**comparison())) == ""


@pytest.mark.parametrize(
    ("value", "low", "high", "expected"),
    [
        (0.7134, 0.68, 0.7512, "0.71 (0.68 to 0.75)"),
        (0.71341, 0.71302, 0.71388, "0.7134 (0.7130 to 0.7139)"),
        (123.4, 110, 141, "120 (110 to 140)"),
        (22.35, 22.1, 22.6, "22.4 (22.1 to 22.6)"),
        (0, -0.004, 0.004, "0.000 (-0.004 to 0.004)"),
        (5, 5, 5, "5.0 (5.0 to 5.0)"),
        (0.00123, 0.0008, 0.0016, "0.0012 (0.0008 to 0.0016)"),
    ],
)
def test_numbers_have_two_digits_or_as_many_as_the_interval_shows(
    value: float, low: float, high: float, expected: str
) -> None:
    assert in_two_digits(Interval(value, low, high, 9)) == expected


def test_the_grid_has_the_first_seeds_of_every_arm(tmp_path: Path) -> None:
    write_study(tmp_path)
    grid = seed_grid(tmp_path / "data/sets", ARMS, "unguided")
    side = 64 * (SIDE // 64)
    assert grid.width == len(ARMS) * (side + GAP) + GAP
    bottom = grid.height - GAP - side // 2
    # Red says which arm, green which seed.
    pixels = [grid.getpixel((GAP + column * (side + GAP) + side // 2, bottom)) for column in range(len(ARMS))]
    assert pixels == [(arm * 100, (SEEDS - 1) * 10, 128) for arm in range(len(ARMS))]


def test_large_images_are_made_smaller_in_the_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("small_study.image", lambda arm, seed: Image.new("RGB", (640, 320), (arm, seed, 9)))
    write_study(tmp_path)
    assert seed_grid(tmp_path / "data/sets", ARMS, "unguided").width == len(ARMS) * (SIDE + GAP) + GAP
