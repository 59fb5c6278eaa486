"""What the parts of labelling hand to each other: sampled tasks and pairs, and people's labels of them.

A task is one picture for one verdict, a pair is two pictures of one prompt and seed for one choice. Ids are keyed
hashes (labeling.sample): they are all that a labeller's browser learns of a picture, and they change with its pixels.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

SAMPLED_TASKS = Path("data/sample/tasks.parquet")
SAMPLED_PAIRS = Path("data/sample/pairs.parquet")
TASK_LABELS = Path("labels/tasks.jsonl")
PAIR_LABELS = Path("labels/pairs.jsonl")

Verdict = Literal["legit_human", "malformed_human", "object_or_scenery", "pattern"]
BodyShape = Literal["normal", "other"]
MalformedPart = Literal["face", "hands", "limbs", "count", "other"]
Choice = Literal["left", "right", "tie"]
Batch = Literal["random", "triage"]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SampledTask(_Record):
    """One picture that people shall judge.

    `inclusion_probability` in (0, 1] is that of its picture in its batch, by design; `repeat_of` names the task
    that shows the same picture to the same person earlier; `overlap` is how many people shall label it;
    `position` orders the queue.
    """

    task_id: str
    image_id: str
    arm: str
    pair_id: int
    stratum: str
    inclusion_probability: Annotated[float, Field(gt=0, le=1)]
    batch: Batch
    repeat_of: str | None = None
    overlap: Annotated[int, Field(ge=1)] = 1
    position: Annotated[int, Field(ge=0)]


class SampledPair(_Record):
    """Two arms' pictures of one prompt and seed, sides drawn at random."""

    task_id: str
    pair_id: int
    prompt: str
    left_arm: str
    right_arm: str
    left_image_id: str
    right_image_id: str
    position: Annotated[int, Field(ge=0)]


class Label(_Record):
    """One person's last word on one task. `labeller` is a pseudonym; `simulated` marks labels that no person gave."""

    task_id: str
    labeller: str
    verdict: Verdict
    body_shape: BodyShape | None = None
    malformed_parts: list[MalformedPart] = Field(default_factory=list)
    note: str = ""
    created_at: AwareDatetime
    simulated: bool

    @model_validator(mode="after")
    def _follows_from_the_verdict(self) -> "Label":
        if self.body_shape and self.verdict not in ("legit_human", "malformed_human"):
            raise ValueError(f"body_shape '{self.body_shape}' is for humans only, the verdict is '{self.verdict}'")
        if self.malformed_parts and self.verdict != "malformed_human":
            raise ValueError(f"malformed_parts are for malformed_human only, the verdict is '{self.verdict}'")
        return self


class PairLabel(_Record):
    """One person's last choice between the two sides of a pair: which picture is better."""

    task_id: str
    labeller: str
    choice: Choice
    created_at: AwareDatetime
    simulated: bool
