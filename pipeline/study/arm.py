"""An arm: one way to generate, as conf/arm describes it."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    field_validator,
    model_serializer,
    model_validator,
)

from pipeline.guidance.attention_space import ATTENTION_SPACE, AttentionSpace
from pipeline.guidance.dynamic_negative import Dynamic
from pipeline.guidance.feedback import Feedback
from pipeline.guidance.posterior import Followed
from pipeline.guidance.postprocess.directions import APG, SlidingMode
from pipeline.guidance.postprocess.guider import Guider
from pipeline.guidance.postprocess.history import HiGS, Momentum
from pipeline.guidance.postprocess.negatives import SEGA, Contrastive, PerpNeg, SafeLatent
from pipeline.guidance.postprocess.post_process import refused_combination
from pipeline.guidance.postprocess.results import Renorm, Rescale
from pipeline.guidance.references import SHORT_NAMES, STANDING_TEXTS, ConditionNoise, GuidanceReference, Perturb
from pipeline.guidance.renoise import CFGPlusPlus
from pipeline.guidance.scale_schedules import Constant, NoiseInterval, Ramp, Steps, Window
from pipeline.layout import REFERENCE_SET
from pipeline.prompting.edits import PromptEdit
from pipeline.prompting.presets import NEGATIVE_PRESETS, QUALITY_TAGS
from pipeline.settings import Name, Seed, Settings
from pipeline.study.controls import Control
from pipeline.study.from_folder import EXTERNAL, FromFolder
from pipeline.study.inpaint import Inpaint
from pipeline.study.named_texts import NEGATIVE_KEYS, NamedText, known_negative_preset
from pipeline.study.reference_images import ReferenceImages
from pipeline.study.sampler import Canvas, ImageToImage, Sampler

Schedule = Annotated[Constant | NoiseInterval | Window | Ramp | Steps | Dynamic | Feedback, Field(discriminator="name")]
Post = Annotated[
    Rescale | Renorm | APG | SlidingMode | PerpNeg | Contrastive | SafeLatent | SEGA | Momentum | HiGS | Guider,
    Field(discriminator="name"),
]

# The methods of one term, and what each moves away from.
METHODS: dict[str, str] = {
    "cfg": "empty",
    "negative": "negative",
    "autoguidance": "guide",
    "independent": "unrelated",
    "pag": "pag",
    "seg": "seg",
    "skip_layers": "skip_layers",
}

# What an external arm may say.
_OF_EXTERNAL = {"from_folder", "method", "scale", "description", "family"}
# What of an arm enters no fingerprint of its images under its own key: it changes no pixel, or stands there as what it
# is made into (texts, the sampler, the images that it starts from).
SAID_ELSEWHERE = {
    *("description", "family", "first_seed", "negative_preset", "negative_prompt", "prompt_edits", "prompt_column"),
    *("image_to_image", "inpaint", "reference_images", "sampler"),
}
# What main predictions are called in the trace.
_MAINS = ("main", "noised", *ATTENTION_SPACE)


class ArmTerm(Settings):
    """One reference of a mix.

    `reference` is a short name, one of the arm's `references`, or one of its `texts`, which the main network then
    reads. The term's scale is `scale` + `share` (arm.scale - 1): shares that add up to 1 spend one budget, and a
    `scale` of the term itself does not follow the arm's unless a share says so. Below 1 it moves towards its reference.
    """

    reference: Name
    share: Annotated[float, Field(ge=-100, le=100)]
    scale: Annotated[float, Field(ge=-100, le=100)] = 1.0
    schedule: Schedule | None = None

    @model_validator(mode="before")
    @classmethod
    def _follows_unless_it_has_its_own(cls, content: Any) -> Any:
        return {"share": 0.0 if "scale" in content else 1.0, **content} if isinstance(content, dict) else content


class Retouch(Settings):
    """What is done to a finished image, as an image editor does it: factors of its saturation and of its contrast.

    No method of guidance: an arm with it is a control of the scores, which shows what they pay for colour alone.
    """

    saturation: Annotated[float, Field(ge=0, le=5)] = 1.0
    contrast: Annotated[float, Field(ge=0, le=5)] = 1.0


class Arm(Settings):
    """One way to generate.

    `scale` is s of `reference + s (main - reference)`: 1 means no guidance (diffusers' and A1111's
    convention; the papers' w is s - 1 in some and s in others). Method `mix` lists its `terms`, each with a share of
    the scale; the other methods are one term by name. `references` and `texts` are those that the arm defines, for
    terms and probes to name. `schedule` is for the terms that have none. `post` is one post-process or a
    list of them, which act in the order written. Those that the family's own pipeline has built in act after them,
    unless `built_in_post` is false or `post` has one of the same name. `step` is how the solver's steps differ from its
    own. `probes` are references that the trace records without using them. `prompt_edits` say the study's prompt in
    other words, image by image (pipeline/prompting/edits.py), and `prompt_column` reads it from another column of the
    study's dataset, so arms stay paired; `quality_preset` then adds quality tags. The negative prompt is a text, a
    preset, or (`negative_from_prompt`) each image's own prompt; its strength u makes the reference of method negative
    (1 - u) empty + u negative, which takes a third evaluation unless u is 0 or 1 (NovelAI's undesired content
    strength). `noise` is on the embedding of the prompt, `retouch` on the finished image. `attention` steers the main
    prediction away from a second text. Where noise or attention makes the main prediction another one, the plain
    prediction of the prompt is the reference `main`. `embedded_guidance` is the scale that a guidance-distilled network
    is told beside every text (FLUX.1-dev; 3.5 unless given). `canvas` is the model's and `sampler` the study's unless
    given; `image_to_image` starts from another set's images, of which `inpaint` keeps what is outside a mask.
    `reference_images` are read by the main network beside the prompt, damaged or not, and empty images beside every
    other text, as in diffusers. A
    `control` (pipeline/study/controls.py) has its scale from the arm that it follows, once that is generated; until
    then it is 1. A `first_seed` makes an arm the baseline from other seeds (pipeline/study/reseeded.py).

    An arm with `from_folder` is external: its images exist already, whatever they were generated with, and it has
    no other settings.
    """

    method: Literal[
        "unguided", "cfg", "negative", "autoguidance", "independent", "pag", "seg", "skip_layers", "external", "mix"
    ]
    scale: Annotated[float, Field(gt=0, le=100)]
    terms: tuple[ArmTerm, ...] = ()
    schedule: Schedule | None = None
    post: tuple[Post, ...] = ()
    built_in_post: bool = True
    step: CFGPlusPlus | None = None
    perturb: Perturb = Perturb()
    references: dict[Name, GuidanceReference] = Field(default_factory=dict)
    texts: dict[Name, NamedText] = Field(default_factory=dict)
    probes: tuple[Name, ...] = ()
    noise: ConditionNoise | None = None
    retouch: Retouch | None = None
    control: Control | None = None
    attention: AttentionSpace | None = None
    prompt: Literal["positive", "empty"] = "positive"
    prompt_edits: tuple[PromptEdit, ...] = ()
    prompt_column: str | None = None
    quality_preset: str | None = None
    negative_prompt: Annotated[str, StringConstraints(max_length=20_000)] | None = None
    negative_preset: str | None = None
    negative_from_prompt: bool = False
    negative_strength: Annotated[float, Field(ge=-10, le=10)] = 1.0
    embedded_guidance: Annotated[float, Field(ge=0, le=100)] | None = None
    canvas: Canvas | None = None
    sampler: Sampler | None = None
    first_seed: Seed | None = None
    image_to_image: ImageToImage | None = None
    inpaint: Inpaint | None = None
    reference_images: ReferenceImages | None = None
    from_folder: FromFolder | None = None
    description: str = ""
    family: Name

    @model_validator(mode="before")
    @classmethod
    def _external_without_more(cls, content: Any) -> Any:
        if not isinstance(content, dict) or not content.get("from_folder"):
            return content
        if extra := sorted(set(content) & set(cls.model_fields) - _OF_EXTERNAL):
            raise ValueError(f"from_folder takes existing images; {extra[0]} would do nothing: remove it")
        return {"method": EXTERNAL, "family": EXTERNAL, "scale": 1.0, **content}

    @model_validator(mode="after")
    def _external_has_a_folder(self) -> "Arm":
        if (self.method == EXTERNAL) != (self.from_folder is not None):
            raise ValueError(f"method {EXTERNAL} goes with from_folder, the folder of its images, and with no other")
        if self.scale != 1 and self.from_folder is not None:
            raise ValueError("from_folder takes existing images; scale would do nothing: remove it")
        return self

    @model_serializer(mode="wrap")
    def _without_a_folder(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # What an arm is made of enters the fingerprints of its images, and those generated before there were external
        # arms or reference images stay.
        content: dict[str, Any] = handler(self)
        added = ("from_folder", "reference_images")
        return {key: value for key, value in content.items() if key not in added or value is not None}

    @model_validator(mode="before")
    @classmethod
    def _family_of_the_method(cls, content: Any) -> Any:
        # Arms of one family are one sweep of scales.
        if not isinstance(content, dict) or "method" not in content:
            return content
        attention = content.get("attention")
        steered = [str(attention["name"])] if isinstance(attention, dict) and "name" in attention else []
        own = [] if steered and content["method"] == "unguided" else [str(content["method"])]
        return {"family": "_".join(own + steered), **content}

    @model_validator(mode="after")
    def _inpaints_a_start_image(self) -> "Arm":
        start = self.image_to_image
        if self.inpaint is None:
            return self
        if start is None:
            raise ValueError("inpaint needs image_to_image, the images that it keeps outside the mask")
        if start.strength == 1 and start.noise:
            raise ValueError(
                "inpaint at image_to_image.strength 1 starts from noise alone; remove image_to_image.noise"
            )
        if self.inpaint.column is not None and (not start.is_folder or Path(start.start) == REFERENCE_SET):
            raise ValueError(
                f"inpaint.column needs image_to_image.from to be a folder of shards that has the column; {start.start} "
                "has none: take box, polygon or file"
            )
        return self

    @model_validator(mode="after")
    def _attention_reads_one_thing(self) -> "Arm":
        if self.reference_images is not None and self.attention is not None:
            raise ValueError(
                f"attention {self.attention.name} and reference_images both change what cross-attention reads; keep one"
            )
        return self

    @field_validator("post", mode="before")
    @classmethod
    def _one_is_a_list(cls, content: Any) -> Any:
        if content is None:
            return ()
        return content if isinstance(content, list | tuple) else (content,)

    _known_negative = field_validator("negative_preset")(known_negative_preset)

    @field_validator("quality_preset")
    @classmethod
    def _known_quality(cls, preset: str | None) -> str | None:
        if preset is not None and preset not in QUALITY_TAGS:
            raise ValueError(f"is unknown; known presets: {', '.join(QUALITY_TAGS)}")
        return preset

    @model_validator(mode="after")
    def _edits_have_a_prompt(self) -> "Arm":
        if self.prompt == "empty" and (self.prompt_edits or self.prompt_column):
            raise ValueError("prompt empty leaves nothing to edit; remove prompt_edits and prompt_column")
        return self

    @model_validator(mode="after")
    def _one_negative(self) -> "Arm":
        given = [self.negative_prompt is not None, self.negative_preset is not None, self.negative_from_prompt]
        keys = "negative_prompt, negative_preset and negative_from_prompt"
        named = "negative" in self.read_texts
        if named and sum(given) != 1:
            who = "method negative" if self.method == "negative" else "reference negative"
            if self.attention is not None and self.attention.text == "negative":
                who = f"attention {self.attention.name}"
            raise ValueError(f"{who} needs exactly one of {keys}")
        if not named and any(given):
            raise ValueError(f"method {self.method} takes none of {keys}")
        if self.negative_strength != 1 and self.method != "negative":
            raise ValueError(
                f"negative_strength is for method negative; method {self.method} says how strong a text is by the "
                "share of its term"
            )
        return self

    @model_validator(mode="after")
    def _names_are_known(self) -> "Arm":
        for kind, own in {"references": [*self.references], "texts": [*self.texts]}.items():
            if taken := sorted({*SHORT_NAMES, *STANDING_TEXTS, *_MAINS} & set(own)):
                raise ValueError(f"{kind}.{taken[0]} would hide the {taken[0]} that arms have; choose another name")
        if both := sorted(set(self.references) & set(self.texts)):
            raise ValueError(f"{both[0]} is both one of references and one of texts; rename one")
        texts = (*STANDING_TEXTS, *self.texts)
        for name, reference in self.references.items():
            if reference.text not in texts:
                raise ValueError(f"references.{name}.text '{reference.text}' is unknown; known: {', '.join(texts)}")
        if self.attention is not None and self.attention.text not in texts:
            raise ValueError(f"attention.text '{self.attention.text}' is unknown; known: {', '.join(texts[1:])}")
        named = {"terms": [term.reference for term in self.terms], "probes": [*self.probes]}
        plain = ("main",) if self.noise or self.attention else ()
        known = (*SHORT_NAMES, *plain, *self.references, *self.texts)
        for kind, names in named.items():
            if unknown := [name for name in names if name not in known]:
                raise ValueError(
                    f"{kind} name the reference '{unknown[0]}', which is unknown; known: {', '.join(known)}"
                )
        asked = {*named["terms"], *self.probes}
        read = {self.references[name].text for name in asked if name in self.references} | self._steering_texts
        unused = [name for name in self.references if name not in asked]
        unused += [name for name in self.texts if name not in asked | read]
        if unused:
            raise ValueError(f"'{unused[0]}' is not used by any term, probe or attention; remove it")
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
        others = set(self.texts) - self._steering_texts
        if self.method != "mix" and (self.references or others) and not self.probes:
            raise ValueError(f"method {self.method} takes no references and texts but those that probes name")
        terms = self.all_terms
        if not terms and (self.schedule or self.step or any(post.needs_terms for post in self.post)):
            raise ValueError(f"method {self.method} has no terms for a schedule, post or step to act on")
        for term in terms:
            schedule = term.schedule or self.schedule
            if isinstance(schedule, Dynamic) and not self._is_text_of_main(term.reference):
                raise ValueError(f"schedule dynamic is for a negative prompt, not {term.reference}")
            if isinstance(schedule, Feedback):
                if term.reference != "empty":
                    raise ValueError(f"schedule feedback is for the empty prompt, not {term.reference}")
                if (scale := self.scale_of(term)) < 1:
                    raise ValueError(f"schedule feedback needs a largest scale of at least 1, not {scale:g}")
        references = {term.reference: self._is_text_of_main(term.reference) for term in terms}
        if refusal := refused_combination(self.post, references):
            raise ValueError(refusal)
        for post in self.post:
            if isinstance(post, Guider):
                self._guider_fits(post)
        more = self.post or self.noise or self.retouch or self.step or self.attention
        if self.control is not None and (self.method != "cfg" or more):
            raise ValueError(
                "a control is plain CFG; it takes method cfg, and no post, noise, retouch, step or attention"
            )
        return self

    @model_validator(mode="after")
    def _step_fits(self) -> "Arm":
        if self.step is not None:
            references = [term.reference for term in self.all_terms]
            if self.step.along not in references:
                raise ValueError(
                    f"step re-noises along '{self.step.along}', which no term names; the terms are "
                    f"{', '.join(references)}"
                )
            if self.followed:
                raise ValueError("step cfg_plus_plus leaves the steps that a schedule dynamic or feedback follows")
        return self

    def _guider_fits(self, post: Guider) -> None:
        if len(post.inputs) != len(self.all_terms):
            raise ValueError(
                f"guider {post.guider} takes {len(post.inputs)} predictions beside the main one "
                f"({', '.join(post.inputs)}), the arm has {len(self.all_terms)}"
            )
        if self.schedule or any(term.schedule or (term.share, term.scale) != (1, 1) for term in self.terms):
            raise ValueError(f"guider {post.guider} has its own start, stop and scales; leave out schedule and share")

    @property
    def all_terms(self) -> tuple[ArmTerm, ...]:
        """The terms, whether the method's name says them or they are listed."""
        if self.method not in METHODS:
            return self.terms
        own = ArmTerm(reference=METHODS[self.method], share=self.negative_strength)
        if self.negative_strength == 1:
            return (own,)
        # Shares that add up to 1 push away from the mixed text's prediction.
        return (own, ArmTerm(reference="empty", share=1 - self.negative_strength))

    @property
    def shown_prompt(self) -> str:
        """What the prompt is, for people to read: `positive`, `empty`, or what was done to it."""
        column = [f"column {self.prompt_column}"] if self.prompt_column else []
        return ", ".join([*column, *(edit.shown for edit in self.prompt_edits)]) or self.prompt

    @property
    def shown_method(self) -> str:
        """The method for people to read, with its strength or what steers its main prediction: `cfg`, `cfg + nag 3`."""
        strength = self.negative_strength
        method = self.method if strength == 1 else f"{self.method} of strength {strength:g}"
        if self.attention is None:
            return method
        steered = f"{self.attention.name} {self.attention.scale:g}"
        return steered if self.method == "unguided" else f"{method} + {steered}"

    @property
    def is_meant_to_guide(self) -> bool:
        """Whether something says so that the trace can be asked about: a scale that is not 1, or steered attention
        beside which the plain prediction is recorded."""
        steered = self.attention is not None and self.attention.acts and "main" in self.probes
        return steered or self.scale != 1 or any(term.scale != 1 for term in self.terms)

    @property
    def read_texts(self) -> set[str]:
        """The texts that are read beside the prompt, by the terms, by attention or for the trace alone."""
        asked = (*(term.reference for term in self.all_terms), *self.probes)
        return ({self.text_of(name) for name in asked} - {"prompt"}) | self._steering_texts

    @property
    def _steering_texts(self) -> set[str]:
        return set() if self.attention is None else {self.attention.text}

    def text_of(self, reference: str) -> str:
        """The text that a reference reads."""
        if reference in self.references:
            return self.references[reference].text
        return reference if reference in (*STANDING_TEXTS, *self.texts) else "prompt"

    def _is_text_of_main(self, reference: str) -> bool:
        return reference == "negative" or reference in self.texts

    def scale_of(self, term: ArmTerm) -> float:
        """A term's own scale and its share of the arm's."""
        return term.scale + term.share * (self.scale - 1)

    @property
    def generates_with(self) -> dict[str, Any]:
        """What its images come from except their seeds: the settings without words about the arm and without probes,
        and without what only probes read."""
        references = {term.reference for term in self.all_terms}
        texts = {self.text_of(name) for name in references} | self._steering_texts
        beside = {"description", "family", "first_seed", "probes", "references", "texts", *NEGATIVE_KEYS}
        return {
            **self.model_dump(exclude=beside),
            "references": {name: one for name, one in self.references.items() if name in references},
            "texts": {name: one for name, one in self.texts.items() if name in texts},
            "negative": self.negative if "negative" in texts else "",
        }

    @property
    def followed(self) -> tuple[Followed, ...]:
        """The schedules by which scales follow the steps that are taken, which not every solver allows."""
        schedules = (term.schedule or self.schedule for term in self.all_terms)
        return tuple(schedule for schedule in schedules if isinstance(schedule, Followed))

    @property
    def negative(self) -> str:
        """The negative prompt as configured, for people to read; empty where the arm has none."""
        if self.negative_from_prompt:
            return "the prompt itself"
        return NEGATIVE_PRESETS[self.negative_preset].text if self.negative_preset else self.negative_prompt or ""

    @property
    def used_negative(self) -> str:
        """The negative prompts of the guidance, one after the other; a text that is only probed changes no image."""
        read = {self.text_of(term.reference) for term in self.all_terms} | self._steering_texts
        own = [text.shown for name, text in self.texts.items() if name in read]
        return ", ".join(text for text in ([self.negative] if "negative" in read else []) + own if text)
