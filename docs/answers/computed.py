"""Numbers that no images are needed for: the code is called, and says how it reads a prompt or what an image costs."""

from abc import abstractmethod
from functools import cache
from typing import Any, Literal

from docs.answers.numbers import Number
from docs.answers.studies import composed
from docs.interrogator_figures import load_kept
from docs.mechanisms import MECHANISMS, share_outside
from docs.toy import draw
from eval.notation import percent, quoted_percent
from pipeline.cost.anlas import anlas
from pipeline.errors import InputError
from pipeline.prompting.emphasis import Syntax, parse
from pipeline.prompting.presets import LADDERS, NEGATIVE_PRESETS, QUALITY_TAGS
from pipeline.prompting.strict_check import check_prompt
from pipeline.prompting.underscores import spaced
from pipeline.results.interval import Interval
from pipeline.settings import Settings
from pipeline.study.anlas import Generation, Tier


class ComputedNumber(Number):
    """A number that the code gives by itself."""

    @abstractmethod
    def value(self) -> float:
        """The number."""

    def compute(self) -> Interval:
        """The number as an interval of no width."""
        value = self.value()
        return Interval(value, value, value, 0)

    def shown(self, interval: Interval) -> str:
        return f"{interval.value:.6g}"


class Truth(ComputedNumber):
    """1 for yes and 0 for no."""

    def shown(self, interval: Interval) -> str:
        return "yes" if interval.value else "no"


class Weight(ComputedNumber):
    """The weight that a part of a prompt is read with."""

    of: Literal["weight"]
    text: str
    part: str
    syntax: Syntax

    def value(self) -> float:
        for span in (span for section in parse(self.text, self.syntax) for span in section):
            if self.part in span.text:
                return span.weight
        raise InputError(f"'{self.text}' in syntax {self.syntax} has no part '{self.part}'")


class Price(ComputedNumber):
    """What NovelAI asks for one image, in Anlas."""

    of: Literal["price"]
    width: int
    height: int
    steps: int
    generation: Generation = "v3"
    smea: Literal["none", "smea", "smea_dyn"] = "none"
    strength: float = 1.0
    uncond_scale: float = 1.0
    tier: Tier = "none"
    sampler: str = "euler_ancestral"

    def value(self) -> float:
        return anlas(**self.model_dump(exclude={"of"}))


class PriceUnknown(Truth):
    """Whether the price of an image is refused as unknown."""

    of: Literal["price_unknown"]
    width: int
    height: int
    steps: int
    generation: Generation
    sampler: str = "euler_ancestral"

    def value(self) -> float:
        try:
            anlas(self.width, self.height, self.steps, self.generation, sampler=self.sampler)
        except ValueError:
            return 1
        return 0


class Refused(Truth):
    """Whether a configured prompt is refused, since it would not get what it asks for."""

    of: Literal["refused"]
    text: str
    syntax: Syntax

    def value(self) -> float:
        try:
            check_prompt(self.text, self.syntax)
        except ValueError:
            return 1
        return 0


class Preset(Truth):
    """Whether a list of unwanted content is this text, byte for byte."""

    of: Literal["preset"]
    name: str
    text: str

    def value(self) -> float:
        return float(NEGATIVE_PRESETS[self.name].text == self.text)


class Quality(Truth):
    """Whether quality tags are this text, at this end of the prompt."""

    of: Literal["quality"]
    name: str
    text: str
    place: Literal["prefix", "suffix"]

    def value(self) -> float:
        tags = QUALITY_TAGS[self.name]
        return float((tags.text, tags.place) == (self.text, self.place))


class Ladder(Truth):
    """Whether a ladder of tags has these steps, best first."""

    of: Literal["ladder"]
    name: str
    tags: tuple[str, ...]

    def value(self) -> float:
        return float(LADDERS[self.name] == self.tags)


class Underscores(Truth):
    """Whether a text with underscores is read as another one."""

    of: Literal["underscores"]
    text: str
    read: str

    def value(self) -> float:
        return float(spaced(self.text) == self.read)


class Outside(ComputedNumber):
    """The share of the points outside every mode under guidance away from a reference, in the plane with known scores
    (docs/mechanisms.py)."""

    of: Literal["outside"]
    reference: Literal["empty", "negative", "guide"]

    def value(self) -> float:
        return _outside(self.reference)

    def shown(self, interval: Interval) -> str:
        return percent(interval.value)


class Setting(ComputedNumber):
    """A number of a study of conf/study: where it stands there, keys with dots between them."""

    of: Literal["setting"]
    study: str
    path: str

    def value(self) -> float:
        found: Any = composed(self.study)
        for key in self.path.split("."):
            found = getattr(found, key) if isinstance(found, Settings) else found[key]
        return float(found)


class Interrogated(ComputedNumber):
    """How right tags are that are read off held-out images (docs/interrogator_figures.py): the share of tags read that
    are right, `precision`, or of tags shown that are found, `recall`."""

    of: Literal["interrogated"]
    share: Literal["precision", "recall"]
    images: Literal["good", "every"]

    def compute(self) -> Interval:
        measured = load_kept()
        found = measured.good if self.images == "good" else measured.every
        return found.precision if self.share == "precision" else found.recall

    def value(self) -> float:
        return self.compute().value

    def shown(self, interval: Interval) -> str:
        return quoted_percent(interval)


@cache
def _outside(reference: str) -> float:
    return share_outside(draw(next(one.guidance for one in MECHANISMS if one.reference.name == reference), points=1000))
