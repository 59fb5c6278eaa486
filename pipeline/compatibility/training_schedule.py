"""A training noise schedule is taken only where its configuration states it.

`scheduler/scheduler_config.json` is read as a schedule of betas, whatever sampler it was written for. Where it has none
(EDM, flow matching), a library would fill in its own. Two things may be left out, because files of the time did not
know them and all of the classes below agree on them: prediction_type (epsilon) and rescale_betas_zero_snr (false).
"""

import json
from typing import Any

from pipeline.errors import InputError
from pipeline.networks.checkpoints import Checkpoint
from pipeline.networks.noise_path import VARIANCE_PRESERVING

_FILE = "scheduler/scheduler_config.json"
# Samplers of networks that were trained on a schedule of betas. LCM's and TCD's are for distilled networks, which other
# samplers do not draw with.
SCHEDULERS = (
    "DDPMScheduler",
    "DDIMScheduler",
    "PNDMScheduler",
    "LMSDiscreteScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "DPMSolverSDEScheduler",
    "UniPCMultistepScheduler",
)
# Of networks that were trained along rectified flow.
FLOW_SCHEDULERS = ("FlowMatchEulerDiscreteScheduler",)
# Keys of that class that make another sampler of it.
_OTHER_FLOWS = {
    "invert_sigmas": "its levels rise",
    "stochastic_sampling": "its steps draw noise that is not from an image's own seed",
}
# By the betas that each is computed from; every solver's scheduler knows these three.
_BETA_SCHEDULES = {
    "linear": ("beta_start", "beta_end"),
    "scaled_linear": ("beta_start", "beta_end"),
    "squaredcos_cap_v2": (),
}
# Keys of those classes that make another schedule of them, and what they are where they do not.
_OTHER_SCHEDULES: dict[str, tuple[Any, ...]] = {
    "timestep_type": ("discrete",),
    "use_flow_sigmas": (False, None),
    "sigma_min": (None,),
    "sigma_max": (None,),
}


def check_training_schedule(key: str, checkpoint: Checkpoint) -> None:
    """Raise InputError where the schedule of `checkpoint`, which the study names in `key`, is not stated or another's.

    A missing file is named where files are looked for (weight_files.py).
    """
    path = checkpoint.family.path
    schedule = checkpoint.schedule
    if not (checkpoint.config / _FILE).is_file():
        return
    where = f"{key}: {checkpoint.config / _FILE}"
    name = schedule.get("_class_name")
    known = SCHEDULERS if path is VARIANCE_PRESERVING else FLOW_SCHEDULERS
    if name not in known:
        said = (
            "does not name its class (_class_name)"
            if name is None
            else f"describes {_shown(name)}, which is not a supported noise schedule"
        )
        raise InputError(f"{where} {said}; take a checkpoint with one of {', '.join(known)}")
    if path is not VARIANCE_PRESERVING:
        for other, what in _OTHER_FLOWS.items():
            if schedule.get(other):
                raise InputError(
                    f"{where} sets {other} to true: {what}, which is not supported; take another checkpoint"
                )
        return
    for other, usual in _OTHER_SCHEDULES.items():
        if other in schedule and schedule[other] not in usual:
            raise InputError(
                f"{where} sets {other} to {_shown(schedule[other])}, so its noise levels do not follow from its betas; "
                "take a checkpoint with a DDPM noise schedule"
            )
    flag = schedule.get("rescale_betas_zero_snr", False)
    if not isinstance(flag, bool | None):  # Python takes the text "false" for true
        raise InputError(
            f"{where} sets rescale_betas_zero_snr to {_shown(json.dumps(flag))}; write true or false, without quotes"
        )
    # Before prediction_type there was this flag, which the library no longer reads.
    if schedule.get("predict_epsilon", True) is not True and "prediction_type" not in schedule:
        raise InputError(
            f"{where} sets predict_epsilon to {_shown(json.dumps(schedule['predict_epsilon']))}, which is no longer "
            "read; write prediction_type: sample"
        )
    prediction = schedule.get("prediction_type", "epsilon")
    if prediction not in path.prediction_types:
        raise InputError(
            f"{where} sets prediction_type to {_shown(prediction)}, which does not go with a schedule of betas; "
            f"take a checkpoint that predicts one of {', '.join(path.prediction_types)}"
        )
    if fault := _fault_of_betas(schedule):
        raise InputError(f"{where} {fault}; fetch the configuration that the network was trained with")


def _fault_of_betas(schedule: dict[str, Any]) -> str:
    steps = schedule.get("num_train_timesteps")
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 2:
        return _instead("num_train_timesteps", steps, "a number of timesteps")
    betas = schedule.get("trained_betas")
    if betas is not None:
        if not isinstance(betas, list) or len(betas) != steps or not all(map(_is_beta, betas)):
            return f"has trained_betas that are not {steps} numbers between 0 and 1 (num_train_timesteps)"
        return ""
    kind = schedule.get("beta_schedule")
    if not isinstance(kind, str) or kind not in _BETA_SCHEDULES:
        return _instead("beta_schedule", kind, f"one of {', '.join(_BETA_SCHEDULES)}")
    for name in _BETA_SCHEDULES[kind]:
        if not _is_beta(schedule.get(name)):
            return _instead(name, schedule.get(name), "a number between 0 and 1")
    return ""


def _instead(name: str, value: object, expected: str) -> str:
    seen = f"states no {name}" if value is None else f"sets {name} to {_shown(value)}"
    return f"{seen}, which must be {expected}"


def _is_beta(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1


def _shown(value: object) -> str:
    return str(value)[:60]
