"""What control arms are, once the arms that they follow have been generated: plain CFG with a scale and steps."""

import json
import math
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.guidance.scale_schedules import Steps
from pipeline.storage.json_file import read_json_text
from pipeline.storage.places import Places
from pipeline.storage.shards import read_set
from pipeline.study.arm import Arm
from pipeline.study.controls import Control
from pipeline.study.study import Study

# Evaluations of plain CFG at a step: the prompt and the empty text.
_EVALUATIONS = 2
_COLUMNS = ["image_id", "step", "effective_scale"]


def resolved(study: Study, names: Iterable[str], places: Places) -> Study:
    """The study with those of its arms `names` that are controls as the plain CFG that they stand for.

    Raises InputError where an arm that one of them follows has not been generated, or has no effective scale.
    """
    found = {name: _resolved(study, name, own.control, places) for name in names if (own := study.arm(name)).control}
    return study.model_copy(update={"arms": study.arms | found}) if found else study


def _resolved(study: Study, name: str, control: Control, places: Places) -> Arm:
    arm, own = study.arm(name), places.of(control.of)
    try:
        scales = effective_scales(read_set(own.traces, _COLUMNS))
        evaluations = float(json.loads(read_json_text(own.costs))["nfe_per_image"])
    except (FileNotFoundError, InputError, KeyError, ValueError) as error:
        raise InputError(
            f"arms.{name} follows arm '{control.of}', whose trace cannot be read ({error}); generate that arm first"
        ) from None
    by_step = np.array([step[np.isfinite(step)].mean() if np.isfinite(step).any() else np.nan for step in scales.T])
    known = by_step[np.isfinite(by_step)]
    if not len(known):
        raise InputError(
            f"arms.{name} follows arm '{control.of}', which has no effective scale: its prompts read as the empty text "
            "does; take it out of the study's controls"
        )
    sampler = study.sampler_of(arm)
    per_step = scales.shape[1] / sampler.steps  # solvers of second order evaluate twice
    steps = max(1, round(evaluations / (_EVALUATIONS * per_step)))
    scale = float(known.mean())
    schedule = None
    if control.scale == "schedule" and not math.isclose(scale, 1):
        factors = [0.0 if math.isnan(value) else (value - 1) / (scale - 1) for value in by_step.tolist()]
        schedule = Steps(name="steps", factors=tuple(factors))
    return arm.model_copy(
        update={"scale": scale, "schedule": schedule, "sampler": sampler.model_copy(update={"steps": steps})}
    )


def effective_scales(trace: pa.Table) -> NDArray[np.float64]:
    """The effective scale of every image and step [N, S] of an arm's trace; NaN where it is not known.

    Raises ValueError where an image lacks a step.
    """
    rows = trace.sort_by([("image_id", "ascending"), ("step", "ascending")])
    images = len(rows["image_id"].unique())
    values = rows["effective_scale"].to_numpy().astype(float)
    if not images or len(values) % images:
        raise ValueError(f"a trace of {images} images has {len(values)} rows")
    scales: NDArray[np.float64] = values.reshape(images, -1)
    return scales
