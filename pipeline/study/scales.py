"""Arms over several scales: the key `scales` of a study asks for more of an arm's than its own.

They are written out when the study is composed, so that params.yaml shows every arm there is.
"""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from pipeline.settings import Name

# Scales by the arm whose other settings they share.
Scales = dict[Name, tuple[Annotated[float, Field(gt=0, le=100)], ...]]

# What arms of one method may differ in: their scale, and what changes no image.
_OF_ONE_SCALE = {"scale", "description", "probes"}


def with_scales(content: dict[str, Any]) -> dict[str, Any]:
    """A composed study with an arm, `<arm>_<scale>`, for each of its `scales` that an arm does not have itself.

    What is malformed is left for validation to refuse.
    """
    arms, scales = content.get("arms"), content.get("scales")
    if not isinstance(arms, dict) or not isinstance(scales, dict):
        return content
    found: dict[str, Any] = {}
    for name, arm in arms.items():
        found[name] = arm
        wanted = scales.get(name)
        if not isinstance(arm, dict) or not isinstance(wanted, list | tuple):
            continue
        for scale in wanted:
            if isinstance(scale, int | float) and scale != arm.get("scale"):
                found[f"{name}_{scale:g}".replace(".", "_")] = {**arm, "scale": float(scale)}
    return {**content, "arms": found}


def at_scales(content: dict[str, Any], scales: Sequence[float]) -> dict[str, Any]:
    """A composed study in which every guided arm stands at each of `scales` and at no other.

    Arms that differ in their scale alone become one, called as the first of them. The baseline stays as it is,
    from whatever seeds.
    """
    arms = content.get("arms")
    if not scales or not isinstance(arms, dict):
        return content
    found: dict[str, Any] = {}
    seen: list[dict[str, Any]] = []
    wanted = {}
    for name, arm in arms.items():
        if name == content.get("baseline") or not isinstance(arm, dict) or _stays_as_it_is(arm):
            found[name] = arm
            continue
        rest = {key: value for key, value in arm.items() if key not in _OF_ONE_SCALE}
        if rest not in seen:
            seen.append(rest)
            found[name] = arm if arm.get("scale") in scales else {**arm, "scale": float(scales[0])}
            wanted[name] = list(scales)
    return {**content, "arms": found, "scales": wanted}


def _stays_as_it_is(arm: dict[str, Any]) -> bool:
    """Whether an arm is not at a scale: an unguided one, an external one, the baseline from other seeds."""
    return arm.get("method") == "unguided" or bool(arm.get("from_folder")) or arm.get("first_seed") is not None
