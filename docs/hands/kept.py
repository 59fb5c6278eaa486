"""What is kept of `study=hands` at a stage of training: one JSON file per stage in docs/hands/measured/, in git."""

import json
from pathlib import Path

from pydantic import ValidationError

from docs.hands.stages import Stage
from docs.kept_results import rounded
from pipeline.errors import InputError
from pipeline.preflight import study_digests
from pipeline.results.comparison import AgainstBaseline, Comparison
from pipeline.results.interval import Interval
from pipeline.settings import Settings
from pipeline.study.study import Study

MEASURED = Path("docs/hands/measured")
# Of every arm against the reference set, and of its difference from the unguided arm.
_SCORES = ("malformed", "recall", "vendi", "clip_score", "aesthetic")


class KeptArm(Settings):
    """An arm's numbers: `scores` by metric, `fd` by feature space, in both against real waving people; and differences
    from the unguided arm, paired image by image: `against` by metric, `shift` (FD to the unguided arm) by space."""

    method: str
    scale: float
    description: str
    scores: dict[str, Interval]
    fd: dict[str, Interval]
    against: dict[str, Interval]
    shift: dict[str, Interval]


class KeptHands(Settings):
    """What one run measured, by the stage whose networks, with these digests, it holds for.

    `floor` is the FD of as many real images from the other real ones, by feature space; the first is the primary one,
    whose extractor was trained elsewhere.
    """

    family: str
    seed: int
    step: int
    guide_step: int
    same_size: bool
    networks: dict[str, str | None]
    images: int
    level: float
    floor: dict[str, Interval]
    arms: dict[str, KeptArm]

    @property
    def stage(self) -> Stage:
        """Where it was measured."""
        return Stage(self.family, self.seed, self.step, self.guide_step, self.same_size)

    @property
    def primary(self) -> str:
        """The primary feature space."""
        return next(iter(self.floor))

    def to_json(self) -> bytes:
        """The file's bytes, rounded as all kept results are."""
        return f"{json.dumps(rounded(self.model_dump(mode='json')), indent=1)}\n".encode()


def kept(stage: Stage, study: Study, comparison: Comparison) -> KeptHands:
    """What is kept of a finished run at a stage."""
    spaces = [space.name for space in comparison.spaces]
    arms = {}
    for arm in comparison.arms:
        against = arm.against_baseline
        arms[arm.arm] = KeptArm(
            method=arm.method,
            scale=arm.scale,
            description=arm.description,
            scores={name: arm.scores[name] for name in _SCORES},
            fd={space: arm.scores[f"{space}_fd"] for space in spaces},
            against={} if against is None else _differences(against, spaces[0]),
            shift={} if against is None else {space: against.spaces[space].shift for space in spaces},
        )
    return KeptHands(
        family=stage.family,
        seed=stage.seed,
        step=stage.step,
        guide_step=stage.guide_step,
        same_size=stage.same_size,
        networks=study_digests(study),
        images=study.generate.images,
        level=comparison.level,
        floor={space.name: space.floor.fd for space in comparison.spaces},
        arms=arms,
    )


def _differences(against: AgainstBaseline, primary: str) -> dict[str, Interval]:
    found = {
        "malformed": against.malformed,
        "clip_score": against.clip_score,
        "recall": against.spaces[primary].variety,
    }
    return {name: value for name, value in found.items() if value is not None}


def path_of(stage: Stage, root: Path = Path()) -> Path:
    """Where a stage's numbers are kept."""
    return root / MEASURED / f"{stage.name}.json"


def load_all(root: Path = Path()) -> list[KeptHands]:
    """All that is kept, in the order of stages. Raises InputError for a malformed file."""
    found = []
    for path in sorted((root / MEASURED).glob("*.json")):
        try:
            found.append(KeptHands.model_validate_json(path.read_bytes()))
        except ValidationError as error:
            raise InputError(f"{path}: {error.errors()[0]['msg']}; `python -m docs.hands.run` writes it") from None
    return sorted(found, key=lambda one: one.stage)
