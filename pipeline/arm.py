"""An arm: one way to generate, as conf/arm describes it."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from pipeline.presets import NEGATIVE_PRESETS, QUALITY_TAGS
from pipeline.section import Section


class Arm(Section):
    """One way to generate.

    `scale` is s of `reference + s (main - reference)`: 1 means no guidance (diffusers' and A1111's
    convention; the papers' w is s - 1 in some and s in others). `quality_preset` adds quality tags to the prompt.
    The negative prompt is a text, a preset, or (`negative_from_prompt`) each picture's own prompt.
    """

    method: Literal["unguided", "cfg", "negative", "autoguidance"]
    scale: Annotated[float, Field(ge=0, le=100)]
    prompt: Literal["positive", "empty"] = "positive"
    quality_preset: str | None = None
    negative_prompt: Annotated[str, StringConstraints(max_length=20_000)] | None = None
    negative_preset: str | None = None
    negative_from_prompt: bool = False
    description: str = ""

    @field_validator("negative_preset")
    @classmethod
    def _known_negative(cls, preset: str | None) -> str | None:
        if preset is not None and preset not in NEGATIVE_PRESETS:
            raise ValueError(f"is unknown; known presets: {', '.join(NEGATIVE_PRESETS)}")
        return preset

    @field_validator("quality_preset")
    @classmethod
    def _known_quality(cls, preset: str | None) -> str | None:
        if preset is not None and preset not in QUALITY_TAGS:
            raise ValueError(f"is unknown; known presets: {', '.join(QUALITY_TAGS)}")
        return preset

    @model_validator(mode="after")
    def _one_negative(self) -> "Arm":
        given = [self.negative_prompt is not None, self.negative_preset is not None, self.negative_from_prompt]
        keys = "negative_prompt, negative_preset and negative_from_prompt"
        if self.method == "negative" and sum(given) != 1:
            raise ValueError(f"method negative needs exactly one of {keys}")
        if self.method != "negative" and any(given):
            raise ValueError(f"method {self.method} takes none of {keys}")
        if self.method == "unguided" and self.scale != 1:
            raise ValueError(f"method unguided has scale 1 by definition, not {self.scale:g}")
        return self

    @property
    def negative(self) -> str:
        """The negative prompt as configured, for people to read; empty where the arm has none."""
        if self.negative_from_prompt:
            return "the prompt itself"
        return NEGATIVE_PRESETS[self.negative_preset].text if self.negative_preset else self.negative_prompt or ""
