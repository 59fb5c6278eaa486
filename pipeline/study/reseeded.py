"""The baseline once more, from other seeds: how far apart two sets lie that differ in nothing but their noise.

An arm with a `first_seed` and no method is one. It gets the baseline's settings when the study is composed, so it
follows whatever is overridden there. It is the floor of shifts and not a method: nothing compares it image by image,
because image k of it and image k of any other arm share their prompt and not their noise.
"""

from collections.abc import Mapping
from typing import Any

from pipeline.study.arm import Arm
from pipeline.study.named_texts import NEGATIVE_KEYS
from pipeline.study.negative import reads_negative

# Settings of the baseline that are about the baseline itself, or record what changes no image.
_NOT_REPEATED = {"description", "family", "first_seed"}


def with_reseeded(content: dict[str, Any]) -> dict[str, Any]:
    """A composed study whose arms with a `first_seed` and no method have the settings of the baseline.

    What is malformed is left for validation to refuse.
    """
    arms, name = content.get("arms"), content.get("baseline")
    baseline = arms.get(name) if isinstance(arms, dict) else None
    if not isinstance(arms, dict) or not isinstance(baseline, dict):
        return content
    repeated = _without_probes({key: value for key, value in baseline.items() if key not in _NOT_REPEATED})
    described = {"description": f"{name} once more, from other seeds"}
    return {
        **content,
        "arms": {
            arm_name: {**described, **repeated, **arm} if _is_to_be_filled(arm) else arm
            for arm_name, arm in arms.items()
        },
    }


def _is_to_be_filled(arm: Any) -> bool:
    return isinstance(arm, dict) and arm.get("first_seed") is not None and arm.get("method") is None


def _without_probes(arm: dict[str, Any]) -> dict[str, Any]:
    """An arm as composed without its probes, and without the texts and references that only they read."""
    named = arm.get("references") or arm.get("texts")
    if named and (arm.get("terms") or arm.get("attention")):
        return arm  # of which some may be the probes' alone; they cost evaluations and change no image
    plain = {key: value for key, value in arm.items() if key not in ("probes", "references", "texts")}
    return plain if reads_negative(plain) else {key: value for key, value in plain.items() if key not in NEGATIVE_KEYS}


def reseeded_fault(arms: Mapping[str, Arm], baseline: str, first_seed: int, images: int) -> str | None:
    """What is wrong with the arms that have their own seeds, with the fix; None where nothing is.

    `first_seed` is the study's, `images` how many an arm has.
    """
    own = [name for name, arm in arms.items() if arm.first_seed is not None]
    for name in own:
        arm, said = arms[name], f"arms.{name}.first_seed is {arms[name].first_seed}"
        if name == baseline:
            return f"{said}; the baseline has the study's seeds: set generate.first_seed"
        if arm.control is not None:
            return f"{said}; a control shares the seeds of the arm that it follows: leave first_seed out"
        if abs((arm.first_seed or 0) - first_seed) < images:
            shared = f"its {images} seeds overlap the study's, which are {first_seed} to {first_seed + images - 1}"
            return f"{said}: {shared}; write {first_seed + images} or more"
        if arm.generates_with != arms[baseline].generates_with:
            return (
                f"{said}, and it does not generate as the baseline '{baseline}' does; other seeds are for one more set "
                "of the baseline, because every other arm is compared with it image by image: leave first_seed out, or "
                "leave out everything else"
            )
    if len(own) > 1:
        return f"arms {' and '.join(own)} are both '{baseline}' from other seeds; keep one of them"
    for name, arm in arms.items():
        if arm.control is not None and arm.control.of in own:
            return f"arms.{name}.control.of is '{arm.control.of}', whose seeds are other ones; name another arm"
        if arm.image_to_image is not None and arm.image_to_image.start in own:
            return f"arms.{name}.image_to_image.from '{arm.image_to_image.start}' has other seeds; name another arm"
    return None
