"""What docs/results.md says of methods against their controls follows the intervals."""

from compositions import composed
from repository_copy import ROOT

from docs.kept_results import load_kept
from docs.method_findings import against_controls, unlike_their_controls
from pipeline.results.comparison import ChosenScale
from pipeline.results.interval import Interval
from pipeline.study.study import parse_study

BELOW, ACROSS, ABOVE = (Interval(value, value - 0.1, value + 0.1, 64) for value in (-0.2, 0.05, 0.3))


def chosen(arm: str, fd: Interval, recall: Interval, vendi: Interval, control: bool = True) -> ChosenScale:
    differences = {"fd": fd, "recall": recall, "vendi": vendi}
    return ChosenScale(
        family=arm,
        arm=arm,
        scale=2.0,
        candidates={arm: 1.0},
        fd=ABOVE,
        against_baseline=differences,
        control=f"{arm}@cfg" if control else None,
        against_control=differences if control else None,
    )


def test_a_lower_distance_and_more_variety_are_better_than_the_control() -> None:
    fd, recall, vendi = against_controls(
        [
            chosen("cads", BELOW, ABOVE, ABOVE),
            chosen("sld", ABOVE, BELOW, ACROSS),
            chosen("slg", ACROSS, ACROSS, ACROSS),
            chosen("cfg", BELOW, BELOW, BELOW, control=False),
        ]
    )
    assert fd == (
        "**Fréchet distance**: 1 of 3 methods cannot be told apart from CFG at their own effective scale. "
        "Better than it: `cads`. Worse: `sld`."
    )
    assert recall.endswith("Better than it: `cads`. Worse: `sld`.")
    assert vendi.startswith("**Vendi score**: 2 of 3 methods")
    assert vendi.endswith("Better than it: `cads`. Worse: none.")


def test_a_retouched_arm_is_left_out() -> None:
    fd, _, _ = against_controls([chosen("cads", BELOW, ABOVE, ABOVE), chosen("fake", BELOW, BELOW, BELOW)], ["fake"])
    assert fd.startswith("**Fréchet distance**: 0 of 1 methods")


def test_controls_that_differ_in_more_than_guidance_are_named() -> None:
    content = composed()
    content["arms"]["cfg"] |= {"step": {"name": "cfg_plus_plus"}, "scale": 0.8}
    study, kept = parse_study(content, "test"), load_kept(parse_study(composed(), "test"), ROOT)
    arms = []
    for arm in kept.arms:
        cheap = arm.cost and arm.arm == "autoguidance"
        arms.append(arm.model_copy(update={"cost": kept.by_name("unguided").cost}) if cheap else arm)
    # Of two arms that are as cheap as unguided, the one without a control is not named.
    picked = [chosen(name, BELOW, ABOVE, ABOVE, name != "unguided") for name in ("unguided", "cfg", "autoguidance")]
    once, stepped = unlike_their_controls(study, kept.model_copy(update={"arms": arms, "chosen": picked}))
    assert once.startswith("`autoguidance`: the network is evaluated once a step")
    assert stepped.startswith("`cfg`: guidance acts in what a step does")
