"""The texts of an arm beside its prompt, as conf/arm describes them."""

from typing import Annotated, Any

from pydantic import StringConstraints, field_validator, model_validator

from pipeline.guidance.references import Share
from pipeline.prompting.presets import NEGATIVE_PRESETS
from pipeline.settings import Settings

# Where an arm says its negative prompt.
NEGATIVE_KEYS = ("negative_prompt", "negative_preset", "negative_from_prompt")


def known_negative_preset(preset: str | None) -> str | None:
    """A preset's name as a configuration may say it. Raises ValueError."""
    if preset is not None and preset not in NEGATIVE_PRESETS:
        raise ValueError(f"is unknown; known presets: {', '.join(NEGATIVE_PRESETS)}")
    return preset


class NamedText(Settings):
    """A text of an arm: as it is, a preset for negative prompts, or the prompt with degraded tokens.

    `degraded` is the share of the prompt's content tokens that read as the empty text's at their places, drawn for
    each image from its seed; the marks of beginning and end, which gather the whole text, stay (arXiv 2603.10780).
    A configuration may write the text alone.
    """

    text: Annotated[str, StringConstraints(max_length=20_000)] | None = None
    preset: str | None = None
    degraded: Share | None = None

    _known = field_validator("preset")(known_negative_preset)

    @model_validator(mode="before")
    @classmethod
    def _text_alone(cls, content: Any) -> Any:
        return {"text": content} if isinstance(content, str) else content

    @model_validator(mode="after")
    def _one(self) -> "NamedText":
        if sum(value is not None for value in (self.text, self.preset, self.degraded)) != 1:
            raise ValueError("needs exactly one of text, preset and degraded")
        return self

    @property
    def shown(self) -> str:
        """The text for people to read; empty where it follows from the prompt."""
        return NEGATIVE_PRESETS[self.preset].text if self.preset else self.text or ""
