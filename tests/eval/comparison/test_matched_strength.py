"""Families over their scales: order, shared start, and values at equal strength."""

import pytest
import torch

from eval.comparison.matched_strength import family_paths, frontiers, matched, matching_levels, sweeps
from eval.statistics.jackknife import Replicates
from pipeline.results.comparison import MATCHED, POINT
from pipeline.study.arm import Arm

LEVEL = 0.95


def arm(method: str, scale: float, **more: str) -> Arm:
    return Arm.model_validate({"description": "", "method": method, "scale": scale, **more})


ARMS = {
    "high": arm("cfg", 4.0),
    "unguided": arm("unguided", 1.0),
    "low": arm("cfg", 2.0),
    "weak": arm("autoguidance", 2.0),
    "weaker": arm("autoguidance", 1.5),
}


def sure(value: float) -> Replicates:
    return Replicates(value, torch.full((20,), value, dtype=torch.float64), 20)


def noisy(value: float, noise: float) -> Replicates:
    without = value + noise * torch.linspace(-1, 1, 20, dtype=torch.float64)
    return Replicates(value, without, 20)


def numbers(clip_score: float, fd: float, shift: float = 1.0, noise: float = 0.0) -> dict[str, Replicates]:
    names = {*MATCHED, *POINT} - {"clip_score", "fd", "shift_fd"}
    return {
        "clip_score": noisy(clip_score, noise),
        "fd": sure(fd),
        "shift_fd": sure(shift),
        **{name: sure(0.5) for name in names},
    }


FOUND = {
    "unguided": numbers(20, 10, 0),
    "low": numbers(24, 6, 2),
    "high": numbers(28, 8, 6),
    "weaker": numbers(21, 7, 1),
    "weak": numbers(26, 4, 4),
}


def test_a_family_begins_at_the_baseline_and_goes_by_scale() -> None:
    assert family_paths(ARMS, "unguided") == {
        "cfg": ["unguided", "low", "high"],
        "autoguidance": ["unguided", "weaker", "weak"],
    }


def test_arms_with_other_prompts_or_another_baseline_begin_elsewhere() -> None:
    empty = {**ARMS, "empty": arm("negative", 2.0, prompt="empty", negative_prompt="bad", family="pure")}
    assert family_paths(empty, "unguided")["pure"] == ["empty"]
    assert family_paths(ARMS, "low")["autoguidance"] == ["weaker", "weak"]


def test_arms_that_differ_in_more_than_their_scale_are_no_sweep() -> None:
    light, heavy, more = (
        arm("negative", scale, negative_prompt=text) for scale, text in ((3, "a"), (3, "b"), (5, "b"))
    )
    arms = {"unguided": ARMS["unguided"], "light": light, "heavy": heavy, "heavier": more}
    assert family_paths(arms, "unguided") == {
        "light": ["unguided", "light"],
        "heavy": ["unguided", "heavy", "heavier"],
    }
    assert sweeps(arms)["heavier"] == "heavy"
    wide = arm("cfg", 5.0, canvas={"width": 96, "height": 64})
    assert family_paths({**ARMS, "wide": wide}, "unguided") == {
        "high": ["unguided", "low", "high"],
        "wide": ["wide"],
        "autoguidance": ["unguided", "weaker", "weak"],
    }
    tagged = arm("cfg", 3.0, quality_preset="tinybooru", family="tagged")
    assert family_paths({**ARMS, "tagged": tagged}, "unguided")["tagged"] == ["tagged"]


def test_a_guided_baseline_has_its_place_in_its_own_sweep() -> None:
    assert family_paths(ARMS, "high")["cfg"] == ["low", "high"]
    assert family_paths(ARMS, "high")["unguided"] == ["unguided"]


def test_values_at_equal_strength_lie_on_the_lines_between_scales() -> None:
    path = ["unguided", "low", "high"]
    found = matched(path, FOUND, "clip_score", level=22, confidence=LEVEL)
    assert found["fd"].value == pytest.approx(8)
    assert found["fd"].low == found["fd"].high == pytest.approx(8)
    assert set(found) == set(MATCHED) - {"clip_score"}
    assert matched(path, FOUND, "clip_score", level=26, confidence=LEVEL)["fd"].value == pytest.approx(7)


def test_a_level_that_is_not_reached_has_no_values() -> None:
    assert matched(["unguided", "low"], FOUND, "clip_score", level=25, confidence=LEVEL) == {}
    assert matched(["high"], FOUND, "clip_score", level=28, confidence=LEVEL) == {}
    # Some replicate ends below 27.9: no interval could be given.
    hardly = {**FOUND, "high": numbers(28, 8, noise=0.5)}
    assert matched(["unguided", "low", "high"], hardly, "clip_score", level=27.9, confidence=LEVEL) == {}
    assert matched(["unguided", "low", "high"], hardly, "clip_score", level=26, confidence=LEVEL)


def test_noise_of_the_strength_is_noise_of_the_value() -> None:
    path = ["unguided", "low", "high"]
    shaky = {**FOUND, "low": numbers(24, 6, noise=0.5)}
    found = matched(path, shaky, "clip_score", level=22, confidence=LEVEL)["fd"]
    assert found.low < found.value == pytest.approx(8)
    assert found.high > found.value


def test_all_families_are_compared_where_all_of_them_come() -> None:
    found = {one["family"]: one for one in frontiers(ARMS, "unguided", FOUND, LEVEL)}
    (by_clip, by_shift) = found["cfg"]["matched"]
    # cfg reaches 20 to 28 and autoguidance 20 to 26; shifts reach 0 to 6 and 0 to 4.
    assert (by_clip["axis"], by_clip["level"]) == ("clip_score", 23)
    assert (by_shift["axis"], by_shift["level"]) == ("shift", 2)
    assert by_clip["values"]["fd"].value == pytest.approx(7)
    assert found["autoguidance"]["matched"][0]["values"]["fd"].value == pytest.approx(5.8)
    assert [point["arm"] for point in found["cfg"]["points"]] == ["unguided", "low", "high"]
    assert found["cfg"]["area"].value == pytest.approx(0.25)


def levels_of(*paths: list[float], noise: float = 0.0) -> list[float]:
    """The levels for paths of CLIP scores from a baseline with 20."""
    found = {"unguided": numbers(20, 10)}
    names = []
    for path in paths:
        names.append([f"arm {len(found) + k}" for k in range(len(path))])
        found |= {name: numbers(value, 5, noise=noise) for name, value in zip(names[-1], path, strict=True)}
    return matching_levels(names, "unguided", found, "clip_score", LEVEL)


def test_methods_that_lower_the_clip_score_do_not_draw_the_level_to_the_baseline() -> None:
    # Two raise it to 30 and 24; two lower it to 10 and 5; the last first raises and then lowers it.
    assert levels_of([30.0], [24.0], [10.0], [5.0]) == [15, 22]
    assert levels_of([30.0, 27.0], [24.0, 10.0], [15.0]) == [17.5, 22]


def test_a_side_that_one_method_takes_has_no_level() -> None:
    assert levels_of([30.0], [10.0]) == []
    assert levels_of([30.0]) == []
    assert levels_of() == []


def test_a_method_that_hardly_leaves_the_baseline_sets_no_level() -> None:
    assert levels_of([30.0], [26.0], [20.5]) == [20.25]
    assert levels_of([30.0], [26.0], [20.5], noise=0.2) == [23]


def test_a_stronger_arm_that_says_little_takes_no_level_away() -> None:
    found = {
        "unguided": numbers(20, 10),
        "a": numbers(24, 5, noise=0.2),
        "a noisy": numbers(25, 5, noise=9),
        "b": numbers(30, 5, noise=0.2),
    }
    assert matching_levels([["a"], ["b"]], "unguided", found, "clip_score", LEVEL) == [22]
    assert matching_levels([["a", "a noisy"], ["b"]], "unguided", found, "clip_score", LEVEL) == [22]


def test_an_unguided_baseline_stands_at_its_scale() -> None:
    arms = {"unguided": ARMS["unguided"], "less": arm("cfg", 0.5), "more": arm("cfg", 2.0)}
    assert family_paths(arms, "unguided") == {"cfg": ["less", "unguided", "more"]}


def test_without_prompts_there_is_no_equal_clip_score() -> None:
    for one in frontiers(ARMS, "unguided", FOUND, LEVEL, prompted=False):
        assert {matched["axis"] for matched in one["matched"]} == {"shift"}


def test_a_precision_of_none_is_not_certain() -> None:
    found = {**FOUND, "high": {**FOUND["high"], "precision": sure(0.0)}}
    (cfg,) = (one for one in frontiers(ARMS, "unguided", found, LEVEL) if one["family"] == "cfg")
    precision = cfg["points"][-1]["precision"]
    assert (precision.value, precision.low) == (0, 0)
    assert precision.high == pytest.approx(0.1611, abs=1e-4)  # Wilson's of 0 among 20


def test_methods_that_lower_the_clip_score_are_compared_where_both_have_lowered_it() -> None:
    # FD is a line in the CLIP score for either, so the values at the level are known.
    arms = {"unguided": ARMS["unguided"], **{name: arm("cfg", scale) for name, scale in (("a1", 2.0), ("a2", 3.0))}}
    arms |= {name: arm("negative", scale, negative_prompt="bad") for name, scale in (("b1", 2.0), ("b2", 3.0))}
    found = {
        "unguided": numbers(75, 1),
        "a1": numbers(78, 0.4),
        "a2": numbers(35, 9),
        "b1": numbers(65, 3),
        "b2": numbers(45, 7),
    }
    by_family = {one["family"]: one["matched"][0] for one in frontiers(arms, "unguided", found, LEVEL)}
    assert {(one["axis"], one["level"]) for one in by_family.values()} == {("clip_score", 60)}
    assert by_family["negative"]["values"]["fd"].value == pytest.approx(4)
    assert by_family["cfg"]["values"]["fd"].value == pytest.approx(0.4 + 8.6 * 18 / 43)


def test_renaming_the_arms_changes_nothing_else() -> None:
    names = {name: f"{name}_again" for name in ARMS}
    renamed = frontiers(
        {names[name]: one for name, one in reversed(ARMS.items())},
        names["unguided"],
        {names[name]: one for name, one in FOUND.items()},
        LEVEL,
    )
    before = {one["family"]: one for one in frontiers(ARMS, "unguided", FOUND, LEVEL)}
    for one in renamed:
        assert one["matched"] == before[one["family"]]["matched"]
        assert one["area"] == before[one["family"]]["area"]
