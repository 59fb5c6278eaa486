"""The prompts that name tinybooru's kinds to its CLIP: `python -m models.tinybooru.kinds` writes kinds.json.

CLIP has read nothing but whole captions, so short prompts (`1person, solo, bad anatomy`) are foreign to it. With 8,
32 and 200 captions a kind, it named the kind of 3,072 held-out real images rightly in 50, 60 and 71 % of cases.
"""

import json
from itertools import islice
from pathlib import Path

from eval.scorers.kinds import KINDS
from pipeline.storage.files import write_atomically
from pipeline.tinybooru.build import plans
from pipeline.tinybooru.image import Plan

KIND_PROMPTS = Path("models/tinybooru/kinds.json")
PROMPTS_A_KIND = 200


def kind_of(planned: Plan) -> str:
    """Which of the label kinds a planned image is."""
    if planned.kind == "person":
        return "malformed_human" if planned.malformed else "legit_human"
    return "pattern" if planned.kind == "pattern" else "object_or_scenery"


def kind_prompts(prompts_a_kind: int = PROMPTS_A_KIND) -> dict[str, list[str]]:
    """Captions of the first training images of each kind, as many a kind."""
    training = plans("train", 0)
    return {
        kind: [
            ", ".join(planned.tags) for planned in islice((p for p in training if kind_of(p) == kind), prompts_a_kind)
        ]
        for kind in KINDS
    }


if __name__ == "__main__":
    write_atomically(KIND_PROMPTS, (json.dumps(kind_prompts(), indent=1) + "\n").encode())
