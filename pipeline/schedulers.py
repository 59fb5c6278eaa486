"""The schedulers of the sampling loop (diffusers' own), by name, and the noise that a picture starts from.

All random numbers of a picture come from its own seed, drawn on the CPU, so a picture does not depend on the batch
it is drawn in.
"""

from collections.abc import Mapping, Sequence

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler
from diffusers.schedulers.scheduling_utils import SchedulerMixin

from pipeline.errors import InputError

SCHEDULERS: dict[str, tuple[type[SchedulerMixin], dict[str, object]]] = {
    "ddim": (DDIMScheduler, {"set_alpha_to_one": True, "clip_sample": False, "timestep_spacing": "trailing"}),
    "euler": (EulerDiscreteScheduler, {"timestep_spacing": "trailing"}),
    "dpmsolver++": (
        DPMSolverMultistepScheduler,
        {"algorithm_type": "dpmsolver++", "solver_order": 2, "timestep_spacing": "trailing"},
    ),
}


def build_scheduler(name: str, schedule: Mapping[str, object]) -> SchedulerMixin:
    """A diffusers scheduler for a training noise schedule. Raises InputError for an unknown name."""
    if name not in SCHEDULERS:
        raise InputError(f"scheduler '{name}' is unknown; known schedulers: {', '.join(SCHEDULERS)}")
    kind, options = SCHEDULERS[name]
    return kind.from_config(schedule, **options)


def initial_noise(seeds: Sequence[int], shape: tuple[int, int, int]) -> tuple[torch.Tensor, list[torch.Generator]]:
    """Unit noise [B, C, H, W] from one generator a seed, and the generators for whatever noise follows."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return torch.stack([torch.randn(shape, generator=g) for g in generators]), generators
