"""What the parts of labelling hand to each other: sampled tasks and pairs, and people's labels of them.

A task is one image for one verdict, a pair is two images of one prompt and seed for one choice. Ids are keyed
hashes (sample.py): they are all that a labeller's browser learns of an image, and they change with its pixels.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from datasets import Features, Value
from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from pipeline.errors import InputError, printable
from pipeline.results.rates import Verdict
from pipeline.settings import ArmName
from pipeline.storage.files import fingerprint, write_atomically
from pipeline.storage.shards import read_table, write_shard

SAMPLED_TASKS = Path("data/sample/tasks.parquet")
SAMPLED_PAIRS = Path("data/sample/pairs.parquet")
TASK_LABELS = Path("labels/tasks.jsonl")
PAIR_LABELS = Path("labels/pairs.jsonl")

BodyShape = Literal["normal", "other"]
MalformedPart = Literal["face", "hands", "limbs", "count", "other"]
Choice = Literal["left", "right", "tie"]
Batch = Literal["random", "triage"]
# Names of files that labellers' images are written to, so nothing that is a path.
TaskId = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z_-]{1,64}$")]

# A label takes some 300 bytes; a note may be long.
_LONGEST_LINE = 2**20


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SampledTask(_Record):
    """One image that people will judge; `canvas` is its width x height in pixels.

    `inclusion_probability` in (0, 1] is that of its image in its batch, by design; `repeat_of` names the task
    that shows the same image to the same person earlier; `overlap` is how many people will label it;
    `position` orders the queue.
    """

    task_id: TaskId
    image_id: str
    arm: ArmName
    pair_id: int
    canvas: str
    stratum: str
    inclusion_probability: Annotated[float, Field(gt=0, le=1)]
    batch: Batch
    repeat_of: str | None = None
    overlap: Annotated[int, Field(ge=1)] = 1
    position: Annotated[int, Field(ge=0)]


class SampledPair(_Record):
    """Two arms' images of one prompt and seed, sides drawn at random."""

    task_id: TaskId
    pair_id: int
    prompt: str
    left_arm: ArmName
    right_arm: ArmName
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
    """One person's last choice between the two sides of a pair: which image is better."""

    task_id: str
    labeller: str
    choice: Choice
    created_at: AwareDatetime
    simulated: bool


TASK_FEATURES = Features(
    {
        "task_id": Value("string"),
        "image_id": Value("string"),
        "arm": Value("string"),
        "pair_id": Value("int64"),
        "canvas": Value("string"),
        "stratum": Value("string"),
        "inclusion_probability": Value("float64"),
        "batch": Value("string"),
        "repeat_of": Value("string"),
        "overlap": Value("int64"),
        "position": Value("int64"),
    }
)
PAIR_FEATURES = Features(
    {
        "task_id": Value("string"),
        "pair_id": Value("int64"),
        "prompt": Value("string"),
        "left_arm": Value("string"),
        "right_arm": Value("string"),
        "left_image_id": Value("string"),
        "right_image_id": Value("string"),
        "position": Value("int64"),
    }
)

_Sampled = TypeVar("_Sampled", SampledTask, SampledPair)
_Given = TypeVar("_Given", Label, PairLabel)


def write_tasks(path: Path, tasks: Sequence[SampledTask]) -> None:
    """Write the sampled tasks, in their order."""
    _write_sample(path, tasks, TASK_FEATURES)


def write_pairs(path: Path, pairs: Sequence[SampledPair]) -> None:
    """Write the sampled pairs, in their order."""
    _write_sample(path, pairs, PAIR_FEATURES)


def read_tasks(path: Path = SAMPLED_TASKS) -> list[SampledTask]:
    """The sampled tasks. Raises InputError where the file is missing or damaged."""
    return _read_sample(path, SampledTask)


def read_pairs(path: Path = SAMPLED_PAIRS) -> list[SampledPair]:
    """The sampled pairs; none where the study asks for none. Raises InputError where the file is damaged."""
    return _read_sample(path, SampledPair) if path.exists() else []


def read_labels(path: Path) -> list[Label]:
    """All labels of the file; none where no one has labelled yet.

    Raises InputError, with the file, the line and the task id, for a line that is not a label and for a second label of
    one task by one labeller.
    """
    return _read_lines(path, Label)


def read_pair_labels(path: Path) -> list[PairLabel]:
    """All choices between pairs in the file, with the errors of `read_labels`."""
    return _read_lines(path, PairLabel)


def write_labels(path: Path, labels: Iterable[Label] | Iterable[PairLabel]) -> None:
    """Write labels as JSON lines, ordered by task and labeller, so that git shows what changed."""
    ordered = sorted(labels, key=lambda label: (label.task_id, label.labeller))
    write_atomically(path, "".join(label.model_dump_json() + "\n" for label in ordered).encode())


def _write_sample(path: Path, records: Sequence[SampledTask] | Sequence[SampledPair], features: Features) -> None:
    rows = [record.model_dump() for record in records]
    write_shard(path, {name: [row[name] for row in rows] for name in features}, features, fingerprint(rows))


def _read_sample(path: Path, record: type[_Sampled]) -> list[_Sampled]:
    try:
        return [record.model_validate(row) for row in read_table(path, list(record.model_fields)).to_pylist()]
    except ValidationError as error:
        raise InputError(f"{path}: {_first_fault(error)}; delete it and run `dvc repro sample`") from None


def _read_lines(path: Path, record: type[_Given]) -> list[_Given]:
    if not path.exists():
        return []
    first_line: dict[tuple[str, str], int] = {}
    labels = []
    for number, line in _numbered_lines(path):
        where = f"{path}:{number}"
        try:
            content = json.loads(line)
            label = record.model_validate(content)
        except ValidationError as error:
            task = (
                f"task_id {str(content['task_id'])[:80]!r}: "
                if isinstance(content, dict) and "task_id" in content
                else ""
            )
            raise InputError(f"{where}: {task}{_first_fault(error)}; fix the line or pull the labels again") from None
        # A thousand brackets are a RecursionError.
        except (ValueError, RecursionError):
            raise InputError(f"{where} is not JSON: {line[:80]!r}; fix the line or pull the labels again") from None
        key = label.task_id, label.labeller
        if key in first_line:
            raise InputError(
                f"{where}: labeller {label.labeller[:80]!r} labelled task_id {label.task_id[:80]!r} on line "
                f"{first_line[key]} already; keep one of the two lines"
            )
        first_line[key] = number
        labels.append(label)
    return labels


def _numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    # One line at a time: a file without line ends would be read whole before it is refused.
    with open(path, "rb") as file:
        for number in count(1):
            line = file.readline(_LONGEST_LINE + 1)
            if len(line) > _LONGEST_LINE:
                raise InputError(f"{path}:{number} is longer than {_LONGEST_LINE} bytes; shorten its note")
            if not line:
                return
            if line.strip():
                yield number, line


def _first_fault(error: ValidationError) -> str:
    first = error.errors()[0]
    key = printable(".".join(map(str, first["loc"])))[:80]
    message = first["msg"].removeprefix("Value error, ")
    if not key:
        return message
    return f"{key} is missing" if first["type"] == "missing" else f"{key} is {str(first['input'])[:80]!r}: {message}"
