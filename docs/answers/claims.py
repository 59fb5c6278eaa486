"""The claims: what people say of negative prompts and guidance, and what decides each of them here.

docs/answers/claims/ has one file per topic. A claim is answered by numbers (`cases`), which a study measures or a call
computes, or has the reason why it cannot be asked (`cannot`). No file holds an answer that a number decides.
"""

from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, StringConstraints, ValidationError, model_validator

from docs.answers import computed, image_numbers, numbers
from docs.answers.rule import Holds
from pipeline.errors import InputError
from pipeline.settings import Name, Settings

CLAIMS = Path("docs/answers/claims")
# What the claims are from, by the number before the point of their ids.
SOURCES = {
    "0": "NAI anime, pure negative prompt (field note)",
    "1": "anything-v3, pure negative prompt (field note)",
    "2": "A guide to NovelAI's image generation",
    "3": "Is a negative prompt a bad version of the model? (dialogue on arXiv 2406.02507)",
    "4": "Is negative prompt necessary? (essay)",
}

Measured = (
    numbers.Score
    | numbers.Change
    | numbers.Ratio
    | numbers.Shift
    | numbers.Variety
    | numbers.Distance
    | numbers.Cosine
    | numbers.StepCosine
    | numbers.Push
    | numbers.Shows
    | numbers.Adhered
    | numbers.AsCFG
    | numbers.Evaluations
    | numbers.AtEqualShift
    | image_numbers.Pixels
    | image_numbers.ScoreDifference
    | image_numbers.Farther
    | image_numbers.Resemblance
    | image_numbers.PromptVariety
    | image_numbers.SeedShare
    | image_numbers.Relation
)
Computed = (
    computed.Weight
    | computed.Price
    | computed.PriceUnknown
    | computed.Refused
    | computed.Preset
    | computed.Quality
    | computed.Ladder
    | computed.Underscores
    | computed.Outside
    | computed.Setting
    | computed.Interrogated
)
AnyNumber = Annotated[Measured | Computed, Field(discriminator="of")]
Sentence = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
Id = Annotated[str, StringConstraints(pattern=r"^[0-4]\.\d+[a-d]?$")]


class Case(Settings):
    """One number of a claim, and what it has to be for the claim to hold.

    `shows` says in words what the number is. `when` names the case among several, to stand behind "holds only when".
    `than` is the other number of a rule without a bound, and `than_study` the study that it is of, where that is not
    the claim's: of other networks.
    """

    shows: Sentence
    number: AnyNumber
    holds: Holds
    when: str = ""
    than: AnyNumber | None = None
    than_study: Name | None = None

    @model_validator(mode="after")
    def _against_what(self) -> "Case":
        if bool(self.holds.against) != (self.than is not None):
            raise ValueError("a rule without a bound goes with `than`, the number it is against, and no other does")
        if self.than_study is not None and (self.than is None or isinstance(self.than, computed.ComputedNumber)):
            raise ValueError("`than_study` goes with `than`, a number that a study measures")
        return self

    @property
    def numbers(self) -> tuple[numbers.Number, ...]:
        """The number, and the one that it is compared with."""
        return (self.number,) if self.than is None else (self.number, self.than)


class Claim(Settings):
    """One claim.

    `says` is the claim in our words, `done` what was done to decide it. `study` is the one in conf/study that measures
    its numbers. `cannot` is why it cannot be asked here.
    """

    id: Id
    says: Sentence
    done: str = ""
    study: Name | None = None
    cases: tuple[Case, ...] = ()
    cannot: str = ""

    @model_validator(mode="after")
    def _decided_one_way(self) -> "Claim":
        if bool(self.cases) == bool(self.cannot):
            raise ValueError("a claim has either cases or the reason why it cannot be asked")
        if self.study is None and any(
            not isinstance(number, computed.ComputedNumber) for case in self.cases for number in case.numbers
        ):
            raise ValueError("numbers that are measured need a study")
        if self.study is not None and not self.measured:
            raise ValueError(f"nothing is read of study '{self.study}'")
        if len(self.cases) > 1 and not all(case.when for case in self.cases):
            raise ValueError("each of several cases needs a `when`")
        if self.cases and not self.done:
            raise ValueError("say what was done")
        return self

    @property
    def source(self) -> str:
        """The title of what it is from."""
        return SOURCES[self.id.split(".")[0]]

    def study_of(self, case: Case, number: numbers.Number) -> str | None:
        """The study that measures a number of one of its cases; None for a number that is computed."""
        if isinstance(number, computed.ComputedNumber):
            return None
        return case.than_study or self.study if number is case.than else self.study

    @property
    def measured(self) -> tuple[tuple[str, numbers.Number], ...]:
        """The numbers that studies measure, each with the name of its study."""
        found = ((self.study_of(case, number), number) for case in self.cases for number in case.numbers)
        return tuple((study, number) for study, number in found if study is not None)


class Topic(Settings):
    """A heading of the page with its claims, in their order."""

    title: Sentence
    claims: tuple[Claim, ...]


class Claims:
    """All claims, by topic. Raises InputError for two claims of one id."""

    def __init__(self, topics: Iterable[Topic]) -> None:
        self.topics = tuple(topics)
        ids = [claim.id for claim in self]
        if twice := sorted({one for one in ids if ids.count(one) > 1}):
            raise InputError(f"claims have the id {twice[0]} twice; ids are unique")

    def __len__(self) -> int:
        return sum(len(topic.claims) for topic in self.topics)

    def __iter__(self) -> Iterator[Claim]:
        return (claim for topic in self.topics for claim in topic.claims)

    @cached_property
    def wanted(self) -> dict[str, dict[str, numbers.Number]]:
        """By study, the numbers that its claims read, by their keys."""
        found: dict[str, dict[str, numbers.Number]] = {}
        for claim in self:
            for study, number in claim.measured:
                found.setdefault(study, {})[number.key] = number
        return found


def load_claims(folder: Path = CLAIMS) -> Claims:
    """The claims of a folder, files in the order of their names. Raises InputError for a malformed file."""
    topics = []
    for path in sorted(folder.glob("*.yaml")):
        try:
            topics.append(Topic.model_validate(yaml.safe_load(path.read_text("utf-8"))))
        except (yaml.YAMLError, ValidationError) as error:
            raise InputError(f"{path}: {error}") from None
    if not topics:
        raise InputError(f"{folder} has no claims; it needs at least one .yaml file")
    return Claims(topics)
