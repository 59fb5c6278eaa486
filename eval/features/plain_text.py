"""What the negative prompts of arms name, as a network that knows no emphasis reads them."""

from pipeline.prompting.plain_text import plain_text
from pipeline.study.study import Study


def names_by_arm(study: Study) -> dict[str, frozenset[str]]:
    """What each arm's negative prompt names; without arms whose images are each kept from their own prompt."""
    return {
        name: frozenset(part.strip() for part in plain_text(arm.used_negative, study.text).split(",")) - {""}
        for name, arm in study.arms.items()
        if not arm.negative_from_prompt
    }
