"""The embedded judge in the words of the interface: it stands in for a person, and scores nothing.

The rates correct the automatic scores by labels; a judge that took part in the scores would agree with itself.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from labeling.records import Choice
from pipeline.errors import InputError
from pipeline.results.rates import Verdict
from pipeline.storage.files import file_digest
from pipeline.tinybooru.flaws import QUALITIES

WEIGHTS = Path("models/tinybooru/judge.safetensors")
_MALFORMED = 0.5


@dataclass(frozen=True)
class Judgement:
    """What the judge says of one image; `p_malformed` in [0, 1] is 0 for all but people, `quality` is a tag."""

    kind: str
    p_malformed: float
    quality: str

    @property
    def verdict(self) -> Verdict:
        """The answer to the interface's first question."""
        if self.kind == "person":
            return "malformed_human" if self.p_malformed > _MALFORMED else "legit_human"
        return "pattern" if self.kind == "pattern" else "object_or_scenery"


def judge(images: Iterable[Image.Image], weights: Path = WEIGHTS) -> list[Judgement]:
    """The judge's word on images, in their order. Raises InputError where its weights are missing."""
    # Its module brings the world's training data along, which a push without the judge does not need.
    from models.tinybooru.judge import load_judge

    given_images = list(images)
    if not given_images:
        return []
    given = load_judge(weights, torch.device("cpu"))(given_images)
    return [
        Judgement(kind, p, quality)
        for kind, p, quality in zip(given.kind, given.p_malformed.tolist(), given.quality, strict=True)
    ]


def better(left: Judgement, right: Judgement) -> Choice:
    """Which of two images is better: the one that is not malformed, then the one of the higher quality tag."""
    worth = [(one.verdict != "malformed_human", -QUALITIES.index(one.quality)) for one in (left, right)]
    return "tie" if worth[0] == worth[1] else "left" if worth[0] > worth[1] else "right"


def judge_version(weights: Path = WEIGHTS) -> str:
    """A name for the judge that changes with its weights. Raises InputError where they are missing."""
    try:
        return f"judge {file_digest(weights)}"
    except FileNotFoundError:
        raise InputError(f"judge {weights} is missing; `make train` makes the embedded one") from None
