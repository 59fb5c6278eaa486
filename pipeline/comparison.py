"""What `metrics/compare.json` holds: eval.compare writes it, the report and the tracking read it."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.errors import InputError
from pipeline.layout import METRICS
from pipeline.section import Name
from pipeline.study import Study

COMPARISON = METRICS / "compare.json"

Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Record(BaseModel):
    # Unknown keys are let through: a reader that shows less than was written is no error.
    model_config = ConfigDict(frozen=True, from_attributes=True)


class Interval(_Record):
    """A number with its interval, over `n` pictures."""

    value: Finite
    low: Finite
    high: Finite
    n: int


class AgainstBaseline(_Record):
    """An arm against the baseline: fd = drift + contraction, and paired differences, arm minus baseline."""

    fd: Interval
    drift: Interval
    contraction: Interval
    spread_ratio: Interval
    mean_share: Finite
    clip_score: Interval
    aesthetic: Interval
    malformed: Interval

    @property
    def intervals(self) -> dict[str, Interval]:
        """The numbers that have an interval, by name."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: value for name, value in values.items() if isinstance(value, Interval)}


class ComparedArm(_Record):
    """One arm; `against_baseline` is None for the baseline itself.

    `scores` are the set metrics against the reference set and the means of the per-image scores, by name.
    """

    arm: Name
    method: str
    scale: Finite
    prompt: Literal["positive", "empty"]
    negative_prompt: str
    description: str
    n: int
    scores: dict[str, Interval]
    against_baseline: AgainstBaseline | None


class Floor(_Record):
    """What two disjoint halves of the reference set, of the arms' N, differ by."""

    fd: Interval


class Provenance(_Record):
    """Where the numbers come from."""

    extractor: str
    extractor_digest: str
    resize: str
    main: str
    guide: str
    reference: str
    code: str
    libraries: dict[str, str]
    params: str


class Comparison(_Record):
    """One study's arms against each other and against the reference set."""

    study: str
    baseline: Name
    level: Finite
    arms: list[ComparedArm]
    floor: Floor
    reference_n: int
    provenance: Provenance

    @model_validator(mode="after")
    def _one_baseline(self) -> "Comparison":
        without = [arm.arm for arm in self.arms if arm.against_baseline is None]
        if without != [self.baseline]:
            raise ValueError(f"against_baseline must be null for the baseline '{self.baseline}' alone, not {without}")
        return self

    @model_validator(mode="after")
    def _one_set_of_scores(self) -> "Comparison":
        wanted = set(self.by_name(self.baseline).scores)
        for arm in self.arms:
            if set(arm.scores) != wanted:
                differing = ", ".join(sorted(set(arm.scores) ^ wanted))
                raise ValueError(f"arms '{arm.arm}' and '{self.baseline}' do not have the same scores: {differing}")
        return self

    def by_name(self, name: str) -> ComparedArm:
        return next(arm for arm in self.arms if arm.arm == name)

    @property
    def guided(self) -> list[tuple[ComparedArm, AgainstBaseline]]:
        return [(arm, arm.against_baseline) for arm in self.arms if arm.against_baseline is not None]


def load_comparison(path: Path, study: Study) -> Comparison:
    """Read and validate `metrics/compare.json`.

    Raises InputError where the file is missing, malformed, or not of this study's name, baseline and arms.
    """
    try:
        comparison = Comparison.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; `dvc repro compare` makes it") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "its content"
        raise InputError(f"{path}: {key}: {first['msg']}; `dvc repro compare` makes it anew") from None
    for what, seen, wanted in (
        ("study", [comparison.study], [study.name]),
        ("baseline", [comparison.baseline], [study.baseline]),
        ("arms", sorted(arm.arm for arm in comparison.arms), sorted(study.arms)),
    ):
        if seen != wanted:
            raise InputError(
                f"{path} has {what} {', '.join(seen)}, the study has {', '.join(wanted)}; "
                "`dvc repro compare` makes it anew"
            )
    return comparison
