"""The numbers that claims are decided by, as a claim names them, read from what a study's stages compared.

Each kind has a name (`of`) and says which arms it is about. image_numbers.py has those that need a study's images,
their scores or their trace.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar, Literal, TypeVar

from eval.notation import quoted
from pipeline.errors import InputError
from pipeline.results.comparison import AgainstBaseline, Alignment, ComparedArm, Comparison, InSpace
from pipeline.results.floor import floors
from pipeline.results.interval import Interval
from pipeline.settings import ArmName, Settings

Found = TypeVar("Found")

_COMPONENTS = re.compile(r"_pc\d+(?=_|$)")


class Unread(InputError):
    """A finished study could not read a number from its images; another size or world may."""


class Number(Settings, ABC):
    """A number with its interval. `signed` says that it is a difference, and is shown with its sign."""

    signed: ClassVar[bool] = False
    of: str

    @property
    def key(self) -> str:
        """What it is called in a file of kept results: its kind and what it is about."""
        words: list[str] = []
        for name in type(self).model_fields:
            value = getattr(self, name)
            words += [str(part) for part in value] if isinstance(value, tuple) else [str(value)]
        return " ".join(words)

    @property
    def about(self) -> tuple[str, ...]:
        """The arms that it is about."""
        own = (getattr(self, name, ()) for name in ("arm", "arms", "than"))
        return tuple(arm for one in own for arm in ((one,) if isinstance(one, str) else one))

    def shown(self, interval: Interval) -> str:
        """The number for people to read."""
        return quoted(interval, signed=self.signed)


class ComparedNumber(Number):
    """A number that metrics/compare.json holds."""

    @abstractmethod
    def read(self, comparison: Comparison) -> Interval:
        """The number. Raises InputError where the comparison does not hold it."""


class Score(ComparedNumber):
    """A metric of one arm by itself, such as its Vendi score."""

    of: Literal["score"]
    metric: str
    arm: ArmName

    def read(self, comparison: Comparison) -> Interval:
        return _known(arm_of(comparison, self.arm).scores, self.metric, "a score")


class Change(ComparedNumber):
    """A paired difference from the baseline, such as that of the CLIP score, by its name in AgainstBaseline."""

    signed: ClassVar[bool] = True
    of: Literal["change"]
    metric: str
    arm: ArmName

    def read(self, comparison: Comparison) -> Interval:
        return _known(_against(comparison, self.arm).intervals, self.metric, "a change")

    def shown(self, interval: Interval) -> str:
        # Distances between the two arms have no sign.
        return quoted(interval, signed=self.metric not in ("kinds", "tags"))


class Ratio(ComparedNumber):
    """A spread over the baseline's: of all images (`spread_ratio`), or within a prompt (`within_prompt`)."""

    of: Literal["ratio"]
    metric: Literal["spread_ratio", "within_prompt"]
    arm: ArmName

    def read(self, comparison: Comparison) -> Interval:
        return _known(_against(comparison, self.arm).intervals, self.metric, "a ratio")


class Shift(ComparedNumber):
    """How far an arm is from the baseline in a feature space, in floors: 1 is what other seeds do."""

    of: Literal["shift"]
    arm: ArmName
    space: str = ""

    def read(self, comparison: Comparison) -> Interval:
        space = self.space or comparison.spaces[0].name
        return _known(floors(comparison, _against(comparison, self.arm)), space, "a feature space")


class Variety(ComparedNumber):
    """How much more of the reference set an arm covers than the baseline does: the difference of their recalls."""

    signed: ClassVar[bool] = True
    of: Literal["variety"]
    arm: ArmName
    space: str

    def read(self, comparison: Comparison) -> Interval:
        return _in_space(comparison, self.arm, self.space).variety


class Distance(ComparedNumber):
    """How much farther an arm is from the reference set than the baseline, in squared feature units."""

    signed: ClassVar[bool] = True
    of: Literal["distance"]
    arm: ArmName
    space: str

    def read(self, comparison: Comparison) -> Interval:
        return _in_space(comparison, self.arm, self.space).distance


class Cosine(ComparedNumber):
    """The cosine between the directions away from two references, mean over the steps of one arm's trajectories."""

    of: Literal["cosine"]
    references: tuple[str, str]
    arm: ArmName

    def read(self, comparison: Comparison) -> Interval:
        for pair in _aligned(comparison, self.arm).pairs:
            if set(pair.references) == set(self.references):
                return pair.cosine
        raise InputError(f"arm '{self.arm}' of study '{comparison.study}' has no cosine of {self.references}")


class Push(ComparedNumber):
    """How large a reference's direction is beside the main prediction (`norm`), or the share of the steps that hold
    half of it (`half`)."""

    of: Literal["push"]
    what: Literal["norm", "half"]
    reference: str
    arm: ArmName

    def read(self, comparison: Comparison) -> Interval:
        actions = {one.reference: one for one in _aligned(comparison, self.arm).actions}
        found: Interval = getattr(_known(actions, self.reference, "a reference"), self.what)
        return found


class StepCosine(ComparedNumber):
    """The cosine between the directions away from two references at the first step, or at the last."""

    of: Literal["step_cosine"]
    references: tuple[str, str]
    arm: ArmName
    step: Literal["first", "last"]

    def read(self, comparison: Comparison) -> Interval:
        for pair in _aligned(comparison, self.arm).pairs:
            if set(pair.references) == set(self.references):
                return pair.steps[0 if self.step == "first" else -1].value
        raise InputError(f"arm '{self.arm}' of study '{comparison.study}' has no cosine of {self.references}")


class Shows(ComparedNumber):
    """How much more often an arm's images show a concept than the baseline's, by a classifier; a share of images."""

    signed: ClassVar[bool] = True
    of: Literal["shows"]
    concept: str
    arm: ArmName

    def read(self, comparison: Comparison) -> Interval:
        concepts = {one.concept: one for one in comparison.shown}
        if self.concept not in concepts:
            raise Unread(f"no classifier tells images of {self.concept} from others well enough")
        return _known(concepts[self.concept].differences, self.arm, "an arm")


class Adhered(ComparedNumber):
    """Of an arm with a negative prompt: how much less often images show what it names (`obeyed`), and which share of
    its shift is something else (`collateral`)."""

    of: Literal["adherence"]
    what: Literal["obeyed", "collateral"]
    arm: ArmName

    def read(self, comparison: Comparison) -> Interval:
        arms = {one.arm: one for one in comparison.adherence}
        if self.arm not in arms:
            raise Unread("no classifier reads well enough what the negative prompt names")
        found: Interval = getattr(arms[self.arm], self.what)
        return found


class AsCFG(ComparedNumber):
    """An arm in terms of plain CFG: the scale that pushes as far along CFG's direction (`scale`), and the share of its
    squared push across it (`elsewhere`)."""

    of: Literal["as_cfg"]
    what: Literal["scale", "elsewhere"]
    arm: ArmName

    def read(self, comparison: Comparison) -> Interval:
        effective = arm_of(comparison, self.arm).effective
        if effective is None:
            raise InputError(f"arm '{self.arm}' of study '{comparison.study}' did not record the empty prompt")
        found: Interval = getattr(effective, self.what)
        return found


class Evaluations(ComparedNumber):
    """Network evaluations of one image, without those of probes: a count."""

    of: Literal["evaluations"]
    arm: ArmName

    def read(self, comparison: Comparison) -> Interval:
        arm = arm_of(comparison, self.arm)
        if arm.cost is None:
            raise InputError(f"arm '{self.arm}' of study '{comparison.study}' has no cost")
        each = arm.cost.nfe_per_image
        return Interval(each, each, each, arm.n)

    def shown(self, interval: Interval) -> str:
        return f"{interval.value:g}"


class AtEqualShift(ComparedNumber):
    """A method's metric where its scales first shift as far as the weakest method's largest shift (`matched`)."""

    of: Literal["at_equal_shift"]
    metric: str
    family: str

    def read(self, comparison: Comparison) -> Interval:
        frontiers = {one.family: one for one in comparison.frontiers}
        for matched in _known(frontiers, self.family, "a sweep of scales").matched:
            if matched.axis == "shift" and matched.values:
                return _known(matched.values, self.metric, "a matched metric")
        raise Unread("the methods do not shift equally far at any of their scales")


def arm_of(comparison: Comparison, name: str) -> ComparedArm:
    """An arm of a comparison. Raises InputError where it has none of that name."""
    return _known({arm.arm: arm for arm in comparison.arms}, name, f"an arm of study '{comparison.study}'")


def _against(comparison: Comparison, name: str) -> AgainstBaseline:
    found = arm_of(comparison, name).against_baseline
    if found is None:
        raise InputError(
            f"arm '{name}' is the baseline of study '{comparison.study}', which is not compared with itself"
        )
    return found


def _in_space(comparison: Comparison, arm: str, space: str) -> InSpace:
    return _known(_against(comparison, arm).spaces, space, "a feature space")


def _aligned(comparison: Comparison, arm: str) -> Alignment:
    return _known({one.arm: one for one in comparison.alignment}, arm, "an arm with several references")


def _known(found: dict[str, Found], name: str, what: str) -> Found:
    if name in found:
        return found[name]
    # How many principal components a space has follows the number of images; a claim names the space alone.
    for own, value in found.items():
        if _COMPONENTS.sub("", own) == name:
            return value
    raise InputError(f"'{name}' is not {what}; known: {_listed(found)}")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
