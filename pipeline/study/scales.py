"""Arms over several scales: the key `scales` of a study asks for more of an arm's than its own.

They are written out when the study is composed, so that params.yaml shows every arm there is.
"""

from typing import Annotated, Any

from pydantic import Field

from pipeline.settings import Name

# Scales by the arm whose other settings they share.
Scales = dict[Name, tuple[Annotated[float, Field(gt=0, le=100)], ...]]


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
