"""The stage `generate` for one arm, as most tests of it want it."""

from pipeline import generate as stage
from pipeline.execution.termination import Termination
from pipeline.storage.places import Places
from pipeline.study.study import Study


def generate(study: Study, arm: str, places: Places, termination: Termination | None = None) -> tuple[int, int]:
    """Generate what is missing of an arm; returns (shards generated, shards in all)."""
    done = stage.generate(study, [arm], places, termination)[arm]
    return done.generated, done.shards
