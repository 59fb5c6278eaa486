"""An arm: one way to generate, as conf/arm describes it."""

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from pipeline.guidance.dynamic_negative import Dynamic
from pipeline.guidance.postprocess import APG, Guider, Rescale
from pipeline.guidance.scale_schedules import Constant, NoiseInterval, Ramp, Window
from pipeline.prompting.presets import NEGATIVE_PRESETS, QUALITY_TAGS
from pipeline.settings import Name, Settings
from pipeline.study.sampler import Canvas, ImageToImage, Sampler

ReferenceName = Literal["empty", "negative", "guide", "unrelated", "pag", "seg", "skip_layers"]
Schedule = Annotated[Constant | NoiseInterval | Window | Ramp | Dynamic, Field(discriminator="name")]
Post = Annotated[Rescale | APG | Guider, Field(discriminator="name")]

# The methods of one term, and what each moves away from.
METHODS: dict[str, ReferenceName] = {
    "cfg": "empty",
    "negative": "negative",
    "autoguidance": "guide",
    "independent": "unrelated",
    "pag": "pag",
    "seg": "seg",
    "skip_layers": "skip_layers",
}


class ArmTerm(Settings):
    """One reference of a mix. Its scale is 1 + `share` (scale - 1): shares that add up to 1 spend one budget."""

    reference: ReferenceName
    share: Annotated[float, Field(ge=0, le=100)] = 1.0
    schedule: Schedule | None = None


class Perturb(Settings):
    """How the main network is damaged for pag, seg and skip_layers (pipeline/networks/perturbation.py)."""

    layers: Annotated[tuple[str, ...], Field(min_length=1)] = ("mid_block",)
    blur: Annotated[float, Field(gt=0)] | None = None


class Arm(Settings):
    """One way to generate.

    `scale` is s of `reference + s (main - reference)`: 1 means no guidance (diffusers' and A1111's
    convention; the papers' w is s - 1 in some and s in others). Method `mix` lists its `terms`, each with a share of
    the scale; the other methods are one term by name. `schedule` is for the terms that have none of their own.
    `probes` are references that the trace records without using them. `quality_preset` adds quality tags to the
    prompt. The negative prompt is a text, a preset, or (`negative_from_prompt`) each picture's own prompt. `canvas` is
    the model's and `sampler` the study's unless given; `image_to_image` starts from another set's pictures.
    """

    method: Literal["unguided", "cfg", "negative", "autoguidance", "independent", "pag", "seg", "skip_layers", "mix"]
    scale: Annotated[float, Field(gt=0, le=100)]
    terms: tuple[ArmTerm, ...] = ()
    schedule: Schedule | None = None
    post: Post | None = None
    perturb: Perturb = Perturb()
    probes: tuple[ReferenceName, ...] = ()
    prompt: Literal["positive", "empty"] = "positive"
    quality_preset: str | None = None
    negative_prompt: Annotated[str, StringConstraints(max_length=20_000)] | None = None
    negative_preset: str | None = None
    negative_from_prompt: bool = False
    canvas: Canvas | None = None
    sampler: Sampler | None = None
    image_to_image: ImageToImage | None = None
    description: str = ""
    family: Name

    @model_validator(mode="before")
    @classmethod
    def _family_of_the_method(cls, content: Any) -> Any:
        # Arms of one family are one sweep of scales.
        return (
            {"family": content["method"], **content} if isinstance(content, dict) and "method" in content else content
        )

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
        named = "negative" in (*(term.reference for term in self.all_terms), *self.probes)
        if named and sum(given) != 1:
            who = "method negative" if self.method == "negative" else "reference negative"
            raise ValueError(f"{who} needs exactly one of {keys}")
        if not named and any(given):
            raise ValueError(f"method {self.method} takes none of {keys}")
        return self

    @model_validator(mode="after")
    def _terms_fit(self) -> "Arm":
        if self.method == "unguided" and self.scale != 1:
            raise ValueError(f"method unguided has scale 1 by definition, not {self.scale:g}")
        if (self.method == "mix") != bool(self.terms):
            raise ValueError("method mix needs terms" if not self.terms else f"method {self.method} takes no terms")
        names = [term.reference for term in self.terms]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"terms name {', '.join(twice)} twice; give one term the sum of the shares")
        if not self.all_terms and (self.schedule or self.post):
            raise ValueError(f"method {self.method} has no terms for a schedule or post to act on")
        for term in self.all_terms:
            if isinstance(term.schedule or self.schedule, Dynamic) and term.reference != "negative":
                raise ValueError(f"schedule dynamic is for reference negative, not {term.reference}")
        if isinstance(self.post, Guider):
            self._guider_fits(self.post)
        return self

    def _guider_fits(self, post: Guider) -> None:
        if len(post.inputs) != len(self.all_terms):
            raise ValueError(
                f"guider {post.guider} takes {len(post.inputs)} predictions beside the main one "
                f"({', '.join(post.inputs)}), the arm has {len(self.all_terms)}"
            )
        if self.schedule or any(term.schedule or term.share != 1 for term in self.terms):
            raise ValueError(f"guider {post.guider} has its own start, stop and scales; leave out schedule and share")

    @property
    def all_terms(self) -> tuple[ArmTerm, ...]:
        """The terms, whether the method's name says them or they are listed."""
        return (ArmTerm(reference=METHODS[self.method]),) if self.method in METHODS else self.terms

    @property
    def is_dynamic(self) -> bool:
        """Whether a scale follows the steps that are taken, which needs an ancestral sampler."""
        return any(isinstance(term.schedule or self.schedule, Dynamic) for term in self.all_terms)

    @property
    def negative(self) -> str:
        """The negative prompt as configured, for people to read; empty where the arm has none."""
        if self.negative_from_prompt:
            return "the prompt itself"
        return NEGATIVE_PRESETS[self.negative_preset].text if self.negative_preset else self.negative_prompt or ""

    @property
    def used_negative(self) -> str:
        """The negative prompt of the guidance; empty where it is only probed, which changes no picture."""
        return self.negative if any(term.reference == "negative" for term in self.all_terms) else ""
