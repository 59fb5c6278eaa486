"""What each feature space sees: `models/tinybooru/feature_spaces.json`, measured by `make feature-spaces`.

A response is the Fréchet distance of a changed set of real images from other real images, in floors: 1 is the distance
of the unchanged set. The page is docs/feature-spaces.md.
"""

import re
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.errors import InputError
from pipeline.layout import EMBEDDED
from pipeline.results.interval import Finite, Interval
from pipeline.settings import Name

SPACE_CARDS = EMBEDDED / "feature_spaces.json"
MADE_BY = "make feature-spaces"
# The cause of the changes that exchange every image's quality tag.
EXCHANGED = "exchanged quality tags"
# A space hardly answers to what raises the distance of real images by less than half.
HARDLY = 1.5

# What quality tags name; pixels; which images there are; how they are drawn.
Group = Literal["finish", "texture", "content", "structure"]
GROUPS: tuple[Group, ...] = get_args(Group)
Text = Annotated[str, Field(min_length=1)]
NotNegative = Annotated[Finite, Field(ge=0)]
Share = Annotated[Finite, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class KnownChange(_Record):
    """A known change of real images: `cause` says in two words what a space answers to, `words` what was done."""

    name: Text
    group: Group
    cause: Text
    words: Text


class Response(_Record):
    """What a space answers to one change, in floors.

    `fd` is the distance of the changed set to the reference set, `difference` that minus the unchanged set's, and `p`
    the p-value of their being equal. `shift` is the distance to the unchanged set, `spread_ratio` is against it too.
    `recall` is the share of reference images that the changed set reaches.
    """

    change: Text
    fd: NotNegative
    difference: Interval
    p: Share
    shift: NotNegative
    spread_ratio: NotNegative
    recall: Share


class SpaceCard(_Record):
    """One feature space.

    `floor` is the distance of unchanged real images to the reference set, in squared feature units; `explained` the
    share of the reference set's variance that the space has; `recall` that of the unchanged images. `vocabulary` has,
    for each exchange of quality tags, how much of a space's answer is its own vocabulary: by how much the exchange
    raises the distance, over what it and the strongest change of content raise it by together.
    """

    name: Name
    extractor: Name
    dimensions: Count
    explained: Share
    floor: Annotated[Finite, Field(gt=0)]
    recall: Share
    vocabulary: Annotated[dict[Text, Interval], Field(min_length=1)]
    responses: list[Response]

    def to(self, change: str) -> Response:
        """The response to the change of that name."""
        return next(response for response in self.responses if response.change == change)

    @property
    def most_vocabulary(self) -> Interval:
        """Its own vocabulary where that is largest."""
        return max(self.vocabulary.values(), key=lambda share: share.value)


class SpaceCards(_Record):
    """The cards of the default study's feature spaces, the primary one first.

    `images` are in each changed set and `reference` in the reference set; `extractors` has the digests of the weights.
    """

    world_version: int
    images: Count
    reference: Count
    level: Annotated[Finite, Field(gt=0.5, lt=1)]
    extractors: dict[Name, Text]
    changes: Annotated[list[KnownChange], Field(min_length=1)]
    spaces: Annotated[list[SpaceCard], Field(min_length=1)]

    @model_validator(mode="after")
    def _every_space_answers_to_every_change(self) -> "SpaceCards":
        changes = [change.name for change in self.changes]
        for space in self.spaces:
            if [response.change for response in space.responses] != changes:
                raise ValueError(f"space '{space.name}' does not answer to each of the changes once and in their order")
            if list(space.vocabulary) != [change.name for change in self.changes if change.cause == EXCHANGED]:
                raise ValueError(f"space '{space.name}' needs the share of its vocabulary in each exchange of quality")
            if space.extractor not in self.extractors:
                raise ValueError(f"space '{space.name}' is of extractor '{space.extractor}', which has no digest")
        for what, names in (("change", changes), ("space", [plain_name(space.name) for space in self.spaces])):
            if twice := next((name for name in names if names.count(name) > 1), None):
                raise ValueError(f"{what} '{twice}' appears twice")
        return self

    @model_validator(mode="after")
    def _every_group_has_a_change(self) -> "SpaceCards":
        if missing := set(GROUPS) - {change.group for change in self.changes}:
            raise ValueError(f"no change of group {', '.join(sorted(missing))}")
        return self

    def sees(self, response: Response) -> bool:
        """Whether the changed set's distance differs from that of the unchanged set, at the cards' level."""
        return response.p < 1 - self.level

    def hardly(self, response: Response) -> bool:
        """Whether a response is no larger than chance or below HARDLY floors."""
        return not self.sees(response) or response.fd < HARDLY

    def change(self, name: str) -> KnownChange:
        """The change of that name."""
        return next(change for change in self.changes if change.name == name)

    def by_cause(self, space: SpaceCard) -> dict[str, Response]:
        """The largest response of a space to each cause, the largest of them first."""
        found: dict[str, Response] = {}
        for response in sorted(space.responses, key=lambda one: -one.fd):
            found.setdefault(self.change(response.change).cause, response)
        return found

    def largest(self, space: SpaceCard, group: Group) -> Response:
        """The largest response of a space to the changes of a group."""
        return max((r for r in space.responses if self.change(r.change).group == group), key=lambda one: one.fd)

    def card(self, space_name: str) -> SpaceCard | None:
        """The card of a space by its name; its number of principal components, which follows N, does not count."""
        return next((space for space in self.spaces if plain_name(space.name) == plain_name(space_name)), None)

    def reason(self, space_name: str) -> str:
        """What a space answers to, in one clause with its largest response in each group; empty where it has no card.

        For instance `clip answers to exchanged quality tags with 13 times its floor, to blur with 3.7 and to dropped
        styles with 2.5, and hardly to malformed people`.
        """
        space = self.card(space_name)
        if space is None:
            return ""
        largest = sorted((self.largest(space, group) for group in GROUPS), key=lambda one: -one.fd)
        answers = [f"to {self._cause(one)} with {times(one.fd)}" for one in largest if not self.hardly(one)]
        hardly = listed([self._cause(one) for one in largest if self.hardly(one)])
        if not answers:
            return f"{space_name} hardly answers to {hardly}"
        answers[0] += " times its floor"
        return f"{space_name} answers {listed(answers)}" + (f", and hardly to {hardly}" if hardly else "")

    def _cause(self, response: Response) -> str:
        return self.change(response.change).cause


def plain_name(space_name: str) -> str:
    """The name of a space without its number of principal components."""
    return re.sub(r"_pc\d+$", "", space_name)


def times(floors: float) -> str:
    """A response as it is quoted: two digits."""
    return f"{floors:.0f}" if floors >= 9.95 else f"{floors:.1f}"


def listed(parts: list[str]) -> str:
    """Parts of a sentence: `a, b and c`."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def load_space_cards(path: Path = SPACE_CARDS) -> SpaceCards:
    """Read and validate the cards. Raises InputError where the file is missing or damaged."""
    try:
        return SpaceCards.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; `{MADE_BY}` makes it") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "its content"
        raise InputError(f"{path}: {key}: {first['msg']}; `{MADE_BY}` regenerates it") from None
