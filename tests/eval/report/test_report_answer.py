"""The answer of the first screen: the sentences for constructed studies, written out."""

from typing import Any

import pytest
from report_numbers import SPACES, alignment, comparison, in_space, interval

from pipeline.results.answer import answer, size
from pipeline.results.comparison import Comparison

# One floor of the constructed studies, in either space.
FLOOR = 2.0
COST = {"probe_nfe_per_image": 0, "probe_flops_per_image": 0, "seconds_per_image": 1, "anlas_per_image": 2}


def directions(negative: float, cfg: float, width: float = 0.02) -> dict[str, Any]:
    """An alignment whose cosines with a weaker network's push are these, for the negative prompt and for CFG."""
    values = {("empty", "negative"): 0.6, ("empty", "guide"): cfg, ("negative", "guide"): negative}
    found = alignment()
    for pair in found["pairs"]:
        value = values[pair["references"]]
        pair["cosine"] = interval(value, value - width, min(1, value + width))
    return found


def guided(
    name: str,
    method: str,
    scale: float,
    shifts: tuple[float, float] = (1.0, 1.0),
    shift_p: tuple[float, float] = (0.001, 0.001),
    **changes: Any,
) -> dict[str, Any]:
    """A guided arm that shifts so many floors in the two feature spaces, and changes nothing else for sure."""
    arm = next(one for one in comparison()["arms"] if one["arm"] == "negative_long")
    against = arm["against_baseline"]
    against["spaces"] = {
        space: in_space((shift * FLOOR, 1.0, 0.0, 0.0), 0.01, (p, 0.5, 0.5, 0.5))
        for space, shift, p in zip(SPACES, shifts, shift_p, strict=True)
    }
    return arm | {"arm": name, "family": method, "method": method, "scale": scale} | changes


def brings(arm: dict[str, Any], **scores: tuple[float, float]) -> dict[str, Any]:
    """The arm, whose scores (value, change) are sure to have changed."""
    keys = {"aesthetic": "quality", "clip_score": "prompt", "malformed": "malformed"}
    for name, (value, change) in scores.items():
        arm["scores"][name] = interval(value, value - 0.01, value + 0.01)
        arm["against_baseline"][name] = interval(change, change - 0.01, change + 0.01)
        arm["against_baseline"]["adjusted_p"][keys[name]] = 0.001
    return arm


def study(
    *arms: dict[str, Any], aligned: dict[str, Any] | None = None, images: int = 192, **changes: Any
) -> Comparison:
    content = comparison()
    content["arms"] = [content["arms"][0], *arms]
    for arm in content["arms"]:
        arm["n"] = images
    for space in content["spaces"]:
        space["floor"]["between_sets"] = interval(FLOOR, 1.9, 2.1)
    content |= {"alignment": [aligned] if aligned else [], "verdicts": [], "named": None, "frontiers": []}
    return Comparison(**content | changes)


def test_no_effect() -> None:
    arm = guided("negative", "negative", 1.5, shifts=(0.01, 0.02), shift_p=(0.4, 0.9))
    found = answer(study(arm, aligned=directions(0.27, 0.28)))
    assert found.question == "Is a negative prompt a bad version of the model?"
    assert found.text == (
        "No: it is no more like a weaker network than CFG is (cosine 0.27 against 0.28, where 1 is the same "
        "direction). It cannot be told apart from unguided generation, neither by its distribution nor by aesthetic "
        "score, P(malformed) or CLIP score, and costs 2 times the evaluations."
    )


def test_an_arm_that_does_nothing_says_so_and_brings_nothing() -> None:
    arm = guided("negative", "negative", 1.0, does_nothing=True)
    assert answer(study(arm, aligned=directions(0.27, 0.28))).details == (
        "It changes nothing: its images differ from the baseline’s by rounding alone.",
    )


def test_a_huge_effect() -> None:
    effective = {
        "scale": interval(1.113, 1.07, 1.15),
        "elsewhere": interval(0.482, 0.46, 0.5),
        "steps": [],
        "over_steps": 0.2,
        "over_images": 0.1,
        "without_direction": 0,
        "answer": "",
    }
    arm = brings(
        guided("negative", "negative", 8, shifts=(605, 700), effective=effective),
        aesthetic=(5.15, 2.25),
        clip_score=(0.1, -0.17),
    )
    assert answer(study(arm, aligned=directions(0.1, 0.28))).text == (
        "No: it is less like a weaker network than CFG is (cosine 0.10 against 0.28, where 1 is the same direction). "
        "At scale 8 it is CFG at 1.11 with 48 % of its push elsewhere. "
        "It shifts the images 600 times as far as two sets of real images lie apart. "
        "It raises the aesthetic score from 2.9 to 5.15 and lowers the CLIP score from 0.276 to 0.1, for 2 times the "
        "evaluations."
    )


def test_a_collapse() -> None:
    arm = guided("negative", "negative", 8, shifts=(605, 700), distinct=3)
    assert answer(study(arm, aligned=directions(0.1, 0.28))).details[0] == "It collapses: 3 of its 192 images differ."


def test_feature_spaces_that_disagree_about_the_size() -> None:
    arm = guided("negative", "negative", 1.5, shifts=(0.36, 12))
    assert answer(study(arm, aligned=directions(0.27, 0.28))).details[0] == (
        "It shifts the images 0.36 to 12 times as far as two sets of real images lie apart, depending on the feature "
        "space."
    )


def test_feature_spaces_that_disagree_about_whether_there_is_a_shift() -> None:
    arm = guided("negative", "negative", 1.5, shifts=(0.36, 12), shift_p=(0.4, 0.001))
    assert answer(study(arm, aligned=directions(0.27, 0.28))).details[0] == (
        "It shifts the images 12 times as far as two sets of real images lie apart in 1 of 2 feature spaces."
    )


def with_other_seeds(floor: float, *arms: dict[str, Any], **changes: Any) -> Comparison:
    """The study with the baseline from other seeds, whose distance is so many floors of real images."""
    for arm in arms:
        for own in arm["against_baseline"]["spaces"].values():
            beyond = own["shift"]["value"] - floor * FLOOR
            own["beyond_floor"] = interval(beyond, beyond - 0.1, beyond + 0.1)
    content = study(*arms, **changes).model_dump()
    for one in [content["floor"], *(space["floor"] for space in content["spaces"])]:
        one["other_seeds"] = interval(floor * FLOOR, floor * FLOOR - 0.1, floor * FLOOR + 0.1)
    return Comparison(**content)


def test_shifts_are_counted_in_that_of_other_seeds_where_it_is_known() -> None:
    arm = guided("negative", "negative", 1.5, shifts=(3, 12))
    assert answer(with_other_seeds(0.5, arm, aligned=directions(0.27, 0.28))).details[0] == (
        "It shifts the images 6.0 to 24 times as far as other seeds do, depending on the feature space."
    )


def test_a_shift_within_that_of_other_seeds_cannot_be_told_apart_however_sure_it_is() -> None:
    arm = guided("negative", "negative", 1.5, shifts=(0.36, 0.2))
    assert answer(with_other_seeds(1.0, arm, aligned=directions(0.27, 0.28))).details[0] == (
        "It cannot be told apart from unguided generation, neither by its distribution nor by aesthetic score, "
        "P(malformed) or CLIP score, and costs 2 times the evaluations."
    )
    arm = brings(guided("negative", "negative", 1.5, shifts=(0.36, 12)), aesthetic=(5.15, 2.25))
    assert answer(with_other_seeds(1.0, arm, aligned=directions(0.27, 0.28))).details[0] == (
        "It shifts the images 12 times as far as other seeds do in 1 of 2 feature spaces."
    )
    arm = brings(guided("negative", "negative", 1.5, shifts=(0.36, 0.2)), aesthetic=(5.15, 2.25))
    assert answer(with_other_seeds(1.0, arm, aligned=directions(0.27, 0.28))).details[0] == (
        "It has a distribution that cannot be told apart from that of unguided generation with other seeds."
    )


def test_too_few_images() -> None:
    arm = guided("negative", "negative", 1.5, shifts=(2, 2.5))
    found = answer(study(arm, aligned=directions(0.27, 0.28), images=16))
    assert found.lead == "Too few images to tell: 16 per arm, where a conclusion needs 64 or more."
    assert found.details[:3] == (
        "What follows is not to be relied on.",
        "No: it is no more like a weaker network than CFG is (cosine 0.27 against 0.28, where 1 is the same "
        "direction).",
        "It shifts the images 2.0 times as far as two sets of real images lie apart.",
    )


def test_only_a_baseline() -> None:
    found = answer(study())
    assert found.question == "How far are the images of unguided from real ones?"
    assert found.text == (
        "They lie 8.9 times as far from real images as other real images do (12 against 1.4). No other arm was "
        "generated, so nothing is compared."
    )
    floor = {"fd": interval(12, 11, 14), "between_sets": interval(2, 1, 3)}
    assert answer(study(floor=floor)).lead == (
        "They cannot be told apart from real images by their Fréchet distance (12 against 12)."
    )


def test_no_negative_arm() -> None:
    arms = [
        brings(guided("cfg", "cfg", 3, shifts=(0.32, 2.1)), aesthetic=(4.1, 1.2)),
        guided("cfg_low", "cfg", 1.5),
        guided("weak", "autoguidance", 1.5, shifts=(0.1, 0.1)),
    ]
    found = answer(study(*arms))
    assert found.question == "What does guidance do to the images of unguided?"
    assert found.text == (
        "CFG at 3 shifts the images 0.32 to 2.1 times as far as two sets of real images lie apart, depending on the "
        "feature space. It raises the aesthetic score from 2.9 to 4.1, for 2 times the evaluations. "
        "Autoguidance at 1.5 shifts the images 0.10 times as far as two sets of real images lie apart. "
        "In aesthetic score, P(malformed) and CLIP score it cannot be told apart from unguided generation, for 2 times "
        "the evaluations."
    )


def test_without_a_weaker_network_to_compare_with_the_question_is_what_it_does() -> None:
    found = answer(study(guided("negative", "negative", 1.5, negative_prompt="bad hands, blurry")))
    assert found.question == "What does the negative prompt “bad hands, blurry” do to the images?"
    assert found.lead == (
        "The negative prompt at 1.5 shifts the images 1.0 times as far as two sets of real images lie apart."
    )


def test_arms_that_nobody_told_the_prompt_are_no_negative_prompts_of_the_comparison() -> None:
    alone = guided("pure", "negative", 2, prompt="empty")
    found = answer(study(alone))
    assert found.question == "What does guidance generate without the prompt?"
    both = answer(study(alone, guided("cfg", "cfg", 3)))
    assert both.question == "What does guidance do to the images of unguided?"
    assert "negative" not in both.text


@pytest.mark.parametrize(
    ("negative", "cfg", "width", "lead"),
    [
        (0.95, 0.28, 0.02, "Yes: it pushes where a weaker network does (cosine 0.95; 1 is the same direction)."),
        (
            0.88,
            0.28,
            0.05,
            "Undecided: the cosine of its push with a weaker network’s is 0.88 (0.83 to 0.93), and 0.9 or more counts "
            "as the same direction.",
        ),
        (
            0.55,
            0.28,
            0.02,
            "Not the same, but more like a weaker network than CFG is (cosine 0.55 against 0.28, where 1 is the same "
            "direction).",
        ),
    ],
)
def test_the_lead_follows_the_cosines(negative: float, cfg: float, width: float, lead: str) -> None:
    arm = guided("negative", "negative", 1.5)
    assert answer(study(arm, aligned=directions(negative, cfg, width))).lead == lead


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.064, "0.064"),
        (0.363, "0.36"),
        (0.999, "1.0"),
        (4, "4.0"),
        (11.6, "12"),
        (1234, "1,200"),
        (-0.5, "0.50"),
        (0, "0"),
    ],
)
def test_sizes_have_two_digits(value: float, text: str) -> None:
    assert size(value) == text
