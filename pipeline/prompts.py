"""The prompts of a study: tag lists of held-out tinybooru pictures of good quality."""

from itertools import islice

from pipeline.arm import Arm
from pipeline.study import Study
from pipeline.tinybooru.build import plans


def study_prompts(study: Study) -> list[str]:
    """One prompt a picture, the same for every arm that does not ask for empty ones."""
    held_out = plans(study.prompts.split, study.prompts.world_seed, good_only=True)
    return [", ".join(planned.tags) for planned in islice(held_out, study.generate.pictures)]


def arm_prompts(arm: Arm, prompts: list[str]) -> list[str]:
    """The prompts of an arm, given those of the study."""
    return [""] * len(prompts) if arm.prompt == "empty" else prompts
