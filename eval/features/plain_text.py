"""What a prompt says to a network that knows no emphasis."""

from pipeline.prompting.emphasis import parse
from pipeline.prompting.text_settings import TextSettings
from pipeline.prompting.underscores import spaced
from pipeline.study.study import Study


def plain_text(prompt: str, settings: TextSettings) -> str:
    """A prompt without its weights and breaks, read as the study's text encoder reads it.

    Scorers take brackets and numbers for words, and count them among the 77 tokens that they read.
    """
    text = " ".join("".join(span.text for span in section) for section in parse(prompt, settings.syntax))
    return spaced(text) if settings.underscores == "spaces" else text


def names_by_arm(study: Study) -> dict[str, frozenset[str]]:
    """What each arm's negative prompt names; without arms whose images are each kept from their own prompt."""
    return {
        name: frozenset(part.strip() for part in plain_text(arm.used_negative, study.text).split(",")) - {""}
        for name, arm in study.arms.items()
        if not arm.negative_from_prompt
    }
