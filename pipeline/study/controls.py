"""Control arms: plain classifier-free guidance at the effective scale of another arm.

A method that is nothing but CFG at another scale changes images as its control does (arXiv 2602.22570). The key
`controls` of a study asks for one, `<arm>@cfg`, beside every guided arm; they are written out when the study is
composed, so that params.yaml shows every arm there is. Their scale is known once the arm that they follow has been
generated and traced (pipeline/generation/control_scales.py).
"""

from collections.abc import Collection
from typing import Any, Literal

from pipeline.errors import InputError
from pipeline.layout import PARAMS
from pipeline.settings import CONTROL, Name, Settings

# What a control shares with the arm that it follows, besides prompts and seeds.
_SHARED = (
    "prompt",
    "prompt_edits",
    "prompt_column",
    "quality_preset",
    "canvas",
    "sampler",
    "image_to_image",
    "inpaint",
    "reference_images",
)
# What makes an arm of method cfg more than plain CFG.
_MORE = ("schedule", "post", "step", "noise", "attention", "retouch")

Controls = Literal["none", "constant", "schedule"]


class Control(Settings):
    """Which arm a control follows: at the mean of its effective scale, or step by step."""

    of: Name
    scale: Literal["constant", "schedule"] = "constant"


def with_controls(content: dict[str, Any]) -> dict[str, Any]:
    """A composed study with the control arms that it asks for.

    An arm that is followed records the predictions that its effective scale is made of. What is malformed is left for
    validation to refuse.
    """
    arms, kind = content.get("arms"), content.get("controls", "none")
    if kind not in ("constant", "schedule") or not isinstance(arms, dict):
        return content
    found: dict[str, Any] = {}
    for name, arm in arms.items():
        if not isinstance(arm, dict) or not is_followed(arm):
            found[name] = arm
            continue
        found[name] = {**arm, "probes": [*(arm.get("probes") or ()), *_unread(arm)]}
        found[f"{name}{CONTROL}"] = {
            "description": f"plain CFG at the effective scale of {name}",
            "family": "control",
            "method": "cfg",
            "scale": 1.0,
            "control": {"of": name, "scale": kind},
            **{key: arm[key] for key in _SHARED if key in arm},
        }
    return {**content, "arms": found}


def stage_of(arm: str) -> str:
    """The key of an arm's stage `metrics` in dvc.yaml.

    DVC reads "@" as the end of a stage's name, so a control's key has "-" instead, which no arm's name has.
    """
    return arm.replace("@", "-")


def with_headlines(content: dict[str, Any]) -> dict[str, Any]:
    """A composed study with the key of every arm's stage `metrics`, for dvc.yaml alone."""
    arms = content.get("arms")
    if not isinstance(arms, dict):
        return content
    return {**content, "headlines": {stage_of(str(name)): name for name in arms}}


def check_headlines(headlines: dict[str, str], arms: Collection[str]) -> None:
    """Raise InputError where `headlines`, which DVC reads, has another arm than the study.

    That happens where an arm is added to params.yaml itself or taken out of it.
    """
    expected = {stage_of(arm): arm for arm in arms}
    if headlines == expected:
        return
    wrong = sorted(set(headlines.items()) - set(expected.items()))
    missing = sorted(set(expected.items()) - set(headlines.items()))
    lines = [f"remove the line '{key}: {arm}'" for key, arm in wrong]
    lines += [f"add the line '{key}: {arm}'" for key, arm in missing]
    raise InputError(f"{PARAMS}: headlines must have every arm once; {', '.join(lines)}")


def is_followed(arm: dict[str, Any]) -> bool:
    """Whether an arm, as composed, is guided by anything but plain CFG, towards a prompt and from the study's seeds."""
    method = arm.get("method")
    if arm.get("prompt") == "empty" or arm.get("control") or arm.get("from_folder"):
        return False
    if arm.get("first_seed") is not None:
        return False
    if method in ("unguided", "cfg"):
        return any(arm.get(key) for key in _MORE)
    return True


def _unread(arm: dict[str, Any]) -> list[str]:
    terms = [term.get("reference") for term in arm.get("terms") or () if isinstance(term, dict)]
    read = {*(arm.get("probes") or ()), *terms, *(["empty"] if arm.get("method") == "cfg" else [])}
    # Where noise or attention changes the main prediction, the plain one has to be told by itself.
    needed = ["empty", *(["main"] if arm.get("noise") or arm.get("attention") else [])]
    return [name for name in needed if name not in read]
