"""References that an arm spells out, as conf/arm describes them: network x text x damage x time.

A reference is a prediction to move away from. Seven have short names; any other is one of the arm's `references`, and
reads one of its `texts` where it needs a separate text (pipeline/study/named_texts.py).
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.settings import Name, Settings

# The references that need no description, and the texts that every arm has.
SHORT_NAMES = ("empty", "negative", "guide", "unrelated", "pag", "seg", "skip_layers")
STANDING_TEXTS = ("prompt", "empty", "negative", "unrelated")

Share = Annotated[float, Field(gt=0, le=1)]
PerturbationKind = Literal["pag", "seg", "skip_layers", "random_layers", "dropout", "shuffle_tokens"]
# Kinds with new random numbers for every image and step.
RANDOM_KINDS = ("random_layers", "dropout", "shuffle_tokens")
# About a tenth of the blocks, as S2-guidance leaves out (arXiv 2508.12880).
DEFAULT_SHARE = 0.1


class ConditionNoise(Settings):
    """Noise on the text embeddings that is annealed away (CADS, arXiv 2310.17347, algorithm 1).

    With t from 1 (first step) to 0, the embedding y becomes sqrt(g) y + `scale` sqrt(1 - g) n, where g is 1 for
    t <= `low`, 0 for t >= `high` and a line between them; `rescale` is the share by which the result gets back y's
    mean and standard deviation. n is drawn for each image and step from the image's seed. The paper's values for
    Stable Diffusion are the defaults; scale 0 from low 1 on adds no noise.
    """

    scale: Annotated[float, Field(ge=0, le=10)] = 0.25
    low: Annotated[float, Field(ge=0, le=1)] = 0.6
    high: Annotated[float, Field(ge=0, le=1)] = 0.9
    rescale: Annotated[float, Field(ge=0, le=1)] = 1.0

    @model_validator(mode="after")
    def _ordered(self) -> "ConditionNoise":
        if self.low > self.high:
            raise ValueError(f"low ({self.low:g}) must not be above high ({self.high:g})")
        return self

    def kept(self, t: float) -> float:
        """g, the share of the embedding's variance that is its own at t, in [0, 1]."""
        if t <= self.low:
            return 1.0
        return 0.0 if t >= self.high else (self.high - t) / (self.high - self.low)


class Perturb(Settings):
    """What pag, seg and skip_layers by their short names do: to which `layers`, with which `blur` (seg)."""

    layers: Annotated[tuple[str, ...], Field(min_length=1)] = ("mid_block",)
    blur: Annotated[float, Field(gt=0)] | None = None


class Damage(Perturb):
    """How a network is damaged for one reference (pipeline/networks/perturbation.py).

    `share` is for the random kinds, which are drawn for each image and step from the image's seed: the probability
    that a block is left out (random_layers), that an activation is (dropout), or that a position's token is shuffled
    (shuffle_tokens).
    """

    kind: PerturbationKind
    share: Share = DEFAULT_SHARE

    @model_validator(mode="after")
    def _fits(self) -> "Damage":
        if self.blur is not None and self.kind != "seg":
            raise ValueError(f"blur is for kind seg, not {self.kind}")
        if "share" in self.model_fields_set and self.kind not in RANDOM_KINDS:
            raise ValueError(f"share is for the kinds {', '.join(RANDOM_KINDS)}, not {self.kind}")
        return self


class GuidanceReference(Settings):
    """A reference: which `network` reads which `text`, damaged how, told which time.

    `text` is one of the arm's texts, or prompt, empty, negative, unrelated. `time` is added to the network's timestep,
    in thousandths of its training's range: above 0 it takes the image for noisier than it is (arXiv 2412.05827).
    `noise` is on the embedding of the text.
    """

    network: Literal["main", "guide"] = "main"
    text: Name = "prompt"
    perturb: Damage | None = None
    time: Annotated[float, Field(ge=-1000, le=1000)] = 0.0
    noise: ConditionNoise | None = None

    @model_validator(mode="after")
    def _is_another_prediction(self) -> "GuidanceReference":
        if not self.model_dump(exclude_defaults=True):
            raise ValueError("is the main prediction itself; name another network, text, perturb, time or noise")
        return self
