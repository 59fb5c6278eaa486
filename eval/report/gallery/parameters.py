"""What an image was generated with, as YAML to copy; the page's script adds what is specific to an image."""

import yaml

from pipeline.results.comparison import Comparison
from pipeline.study.study import Study

# What the script writes in front (templates/gallery/images.js), and what changes no image.
_OF_THE_IMAGE = {"prompt", "negative_prompt", "negative_preset", "negative_from_prompt"}
_BESIDE = {"description", "family", "probes", "sampler", "scale"}


def arm_parameters(study: Study, comparison: Comparison) -> dict[str, str]:
    """{arm: YAML of what all its images share}: scale, sampler, steps, networks, and whatever else the arm sets.

    The scale is the compared one, which for a control was measured and not configured.
    """
    return {name: _parameters(study, name, comparison.by_name(name).scale) for name in study.compared}


def _parameters(study: Study, name: str, scale: float) -> str:
    arm = study.arm(name)
    if arm.from_folder is not None:
        return ""  # its images have parameters of their own (image_metadata.py)
    settings = arm.model_dump(
        mode="json", by_alias=True, exclude_defaults=True, exclude=_OF_THE_IMAGE | _BESIDE | {"method"}
    )
    networks = study.model.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude={"name", "loading"})
    content = {
        "method": arm.method,
        "scale": scale,
        **settings,
        "sampler": study.sampler_of(arm).model_dump(mode="json", exclude_defaults=True),
        "model": {"name": study.model.name, **networks},
        "study": study.name,
    }
    return str(yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)).rstrip()
