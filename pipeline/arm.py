"""An arm: one way to generate, as conf/arm describes it."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from pipeline.presets import NEGATIVE_PROMPTS
from pipeline.section import Section


class Arm(Section):
    """One way to generate.

    `scale` is s of `reference + s (main - reference)`: 1 means no guidance (diffusers' and A1111's
    convention; the papers' w is s - 1 in some and s in others).
    """

    method: Literal["unguided", "cfg", "negative", "autoguidance"]
    scale: Annotated[float, Field(ge=0, le=100)]
    prompt: Literal["positive", "empty"] = "positive"
    negative_prompt: Annotated[str, StringConstraints(max_length=2000)] | None = None
    negative_preset: str | None = None
    description: str = ""

    @field_validator("negative_preset")
    @classmethod
    def _known_preset(cls, preset: str | None) -> str | None:
        if preset is not None and preset not in NEGATIVE_PROMPTS:
            raise ValueError(f"is unknown; known presets: {', '.join(NEGATIVE_PROMPTS)}")
        return preset

    @model_validator(mode="after")
    def _one_negative(self) -> "Arm":
        given = [self.negative_prompt, self.negative_preset]
        if self.method == "negative" and given.count(None) != 1:
            raise ValueError("method negative needs exactly one of negative_prompt and negative_preset")
        if self.method != "negative" and given.count(None) != 2:
            raise ValueError(f"method {self.method} takes no negative_prompt and no negative_preset")
        if self.method == "unguided" and self.scale != 1:
            raise ValueError(f"method unguided has scale 1 by definition, not {self.scale:g}")
        return self

    @property
    def negative(self) -> str:
        """The text of the negative prompt; empty where the arm has none."""
        return NEGATIVE_PROMPTS[self.negative_preset] if self.negative_preset else self.negative_prompt or ""
