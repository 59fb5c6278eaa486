"""What `metrics/labels.json` holds: labeling/rates/label_rates.py writes it, the report and the tracking read it.

Everything in it that rests on simulated labels says so, so that nothing shows them as people's.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import InputError
from pipeline.layout import METRICS
from pipeline.results.interval import Finite, Interval
from pipeline.settings import ArmName
from pipeline.storage.json_file import read_json_text

RATES = METRICS / "labels.json"

Verdict = Literal["legit_human", "malformed_human", "object_or_scenery", "pattern"]
VERDICTS: tuple[Verdict, ...] = ("pattern", "object_or_scenery", "malformed_human", "legit_human")

# How everything that rests on labels that no person gave is marked.
SIMULATED = "simulated"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Rate(_Record):
    """A rate, or a difference of rates, from labels alone, and from labels with the scores of all images."""

    classical: Interval
    powered: Interval | None

    @property
    def best(self) -> Interval:
        """The prediction-powered interval where there is one."""
        return self.powered or self.classical


class LabelledImages(_Record):
    """The rates of the images of one arm, or of all arms with one canvas size (`name`).

    `canvas` is width x height in pixels; `images` of the random batch are labelled; `body_normal` is the share of
    normal body shapes among the people whose shape someone judged.
    """

    name: str
    canvas: str
    images: Annotated[int, Field(ge=1)]
    simulated: bool
    verdicts: dict[Verdict, Rate]
    body_normal: Interval | None


class Difference(_Record):
    """Rates of an arm minus those of the baseline, over `pairs` of the same prompt and seed."""

    arm: ArmName
    pairs: Annotated[int, Field(ge=1)]
    simulated: bool
    verdicts: dict[Verdict, Rate]


class Agreement(_Record):
    """Krippendorff's alpha of the verdicts, over the images that several people labelled."""

    alpha: Interval
    simulated: bool


class SelfAgreement(_Record):
    """The share of repeated images to which one labeller gave the same verdict twice."""

    labeller: str
    same: Interval
    simulated: bool


class CalibrationBin(_Record):
    """Images with P(malformed) in [low, high): their mean score, and the rate of malformed people among them."""

    low: Finite
    high: Finite
    score: Finite
    rate: Interval


class Calibration(_Record):
    """P(malformed) against the labels."""

    images: int
    brier: Interval
    auc: Interval | None
    bins: list[CalibrationBin]
    simulated: bool


class Strength(_Record):
    """The Bradley-Terry strength of an arm: the log odds that its image is preferred to the average arm's."""

    arm: ArmName
    strength: Interval
    simulated: bool


class Rates(_Record):
    """What people's labels say about a study; empty lists where there are no labels yet.

    `left_out` counts the labels in the repository that are of no task of the present sample; all else is without them.
    """

    baseline: ArmName
    level: Finite
    labels: int
    pair_labels: int
    labellers: int
    simulated_labels: int
    left_out: int
    arms: list[LabelledImages]
    canvases: list[LabelledImages]
    differences: list[Difference]
    agreement: Agreement | None
    self_agreement: list[SelfAgreement]
    calibration: Calibration | None
    strengths: list[Strength]

    def of_arm(self, name: str) -> LabelledImages | None:
        """The rates of an arm; None where no one labelled it."""
        return next((arm for arm in self.arms if arm.name == name), None)

    def strength_of(self, name: str) -> Strength | None:
        """The strength of an arm; None where no pair showed it, or the pairs do not connect the arms."""
        return next((found for found in self.strengths if found.arm == name), None)


def load_rates(path: Path) -> Rates:
    """Read and validate `metrics/labels.json`. Raises InputError where it is missing or damaged."""
    try:
        return Rates.model_validate_json(read_json_text(path))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; `dvc repro rates` makes it") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "its content"
        raise InputError(f"{path}: {key}: {first['msg']}; `dvc repro rates` regenerates it") from None
