"""The colours of arms: readable on both grounds, apart for colour-blind readers, the same in every study."""

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.results.colours import BASELINE, HUES, arm_colours, hues, push_colour, shade
from pipeline.results.comparison import ComparedArm

# Grounds of the report's two themes.
GROUNDS = ("#FFFFFF", "#121417")
# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
BLIND = {
    "nobody": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
# Ottosson (2020), "A perceptual color space for image processing".
TO_CONES = np.array(
    [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
     [0.0883024619, 0.2817188376, 0.6299787005]]
)  # fmt: skip
TO_LAB = np.array(
    [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
     [0.0259040371, 0.7827717662, -0.8086757660]]
)  # fmt: skip


def linear(colour: str) -> NDArray[np.float64]:
    values = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """WCAG 2.2's contrast ratio."""
    low, high = sorted(float(linear(colour) @ [0.2126, 0.7152, 0.0722]) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def seen(colour: str, by: str) -> NDArray[np.float64]:
    """The colour in OKLab."""
    found: NDArray[np.float64] = TO_LAB @ np.cbrt(TO_CONES @ np.clip(BLIND[by] @ linear(colour), 0, 1))
    return found


def arm(name: str, family: str, scale: float) -> ComparedArm:
    # Only what a colour depends on; the rest of an arm has nothing to do with it.
    return ComparedArm.model_construct(arm=name, family=family, scale=scale)


@pytest.mark.parametrize("ground", GROUNDS)
def test_every_colour_is_readable_on_both_grounds(ground: str) -> None:
    for colour in (BASELINE, *(shade(hue, rank, 5) for hue in range(HUES) for rank in range(5))):
        assert contrast(colour, ground) >= 3, colour


@pytest.mark.parametrize("by", BLIND)
def test_the_first_three_hues_stay_apart_for_everybody_in_every_shade(by: str) -> None:
    for one, other in combinations(range(3), 2):
        worst = min(
            np.linalg.norm(seen(shade(one, a, 3), by) - seen(shade(other, b, 3), by))
            for a in range(3)
            for b in range(3)
        )
        # About 0.02 is just noticeable side by side.
        assert worst > 0.035


def test_a_stronger_guidance_is_darker() -> None:
    lightness = [seen(shade(0, rank, 4), "nobody")[0] for rank in range(4)]
    assert lightness == sorted(lightness, reverse=True)
    assert lightness[0] > seen(shade(0), "nobody")[0] > lightness[-1]


def test_a_rank_outside_the_ranks_is_refused() -> None:
    with pytest.raises(ValueError, match="rank 2 is none of 2 ranks"):
        shade(0, 2, 2)


def test_a_method_keeps_its_hue_in_every_study_and_others_take_what_is_free() -> None:
    assert hues(["negative", "cfg"]) == {"negative": 1, "cfg": 0}
    found = hues(["seg", "autoguidance", "pag", "cads"])
    assert found["autoguidance"] == 2
    assert len(set(found.values())) == 4
    assert found["cads"] >= HUES, "beyond the hues only a symbol tells families apart"


def test_arms_of_one_family_share_the_hue_and_differ_in_shade_by_scale() -> None:
    arms = [arm("plain", "unguided", 1), arm("strong", "cfg", 3), arm("weak", "cfg", 1.5), arm("own", "negative", 1.5)]
    found = arm_colours(arms, "plain")
    assert found == {"plain": BASELINE, "strong": shade(0, 1, 2), "weak": shade(0, 0, 2), "own": shade(1)}


def test_a_push_has_the_colour_of_its_method_and_a_comparison_that_of_what_is_asked_about() -> None:
    assert [push_colour([name]) for name in ("empty", "negative", "guide")] == [shade(0), shade(1), shade(2)]
    assert push_colour(("negative", "guide")) == shade(1)
    assert push_colour(("empty", "guide")) == shade(0)
    assert push_colour(("empty", "negative")) == BASELINE
