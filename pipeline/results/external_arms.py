"""What compare.json holds of an external arm: where its images come from, and what they say of themselves."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.results.interval import Interval


class Unread(BaseModel):
    """A file whose metadata could not be read, and why."""

    model_config = ConfigDict(frozen=True)

    file: str
    fault: str


class JoinedScore(BaseModel):
    """A score that others gave: its mean over the images that have it, and the difference from the baseline's, over
    the pairs in which both have it; None where there are none."""

    model_config = ConfigDict(frozen=True)

    mean: Interval
    difference: Interval | None = None


class ExternalArm(BaseModel):
    """An arm whose images someone else generated.

    `paired_by` says what two images of a pair share; by `prompt` they share that alone, by `none` nothing. Counts are
    of the arm's images: by `sizes` as they were found, by what was `done` to bring them to the canvas, by `tools` that
    left metadata, and by the values of each of the `settings` in them, the most frequent first. `unread` are the first
    of `faults` files whose metadata could not be read.
    """

    model_config = ConfigDict(frozen=True)

    folder: str
    paired_by: Literal["name", "seed", "prompt", "none"]
    canvas: str
    sizes: dict[str, int]
    done: dict[str, int]
    tools: dict[str, int]
    prompts: int
    seeds: int
    settings: dict[str, dict[str, int]]
    faults: int
    unread: list[Unread] = Field(default_factory=list)
    scores: dict[str, JoinedScore] = Field(default_factory=dict)

    @property
    def is_paired(self) -> bool:
        """Whether two images of a pair are two versions of one image."""
        return self.paired_by in ("name", "seed")
