"""The solvers of the sampling loop and what each can do, without torch (pipeline/sampling/steppers.py runs them)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Levels = Literal["native", "karras", "exponential", "polyexponential"]

_ALL_LEVELS: tuple[Levels, ...] = ("native", "karras", "exponential", "polyexponential")
_STEPPERS = "pipeline.sampling.steppers"
_SCHEDULERS = "pipeline.sampling.schedulers"


@dataclass(frozen=True)
class Solver:
    """One way to step from a noise level to the next: a `scheduler` of diffusers with its `options`.

    `scheduler` and `stepper`, which knows how the scheduler is run, are "module:class", imported when a network is
    sampled from. `levels` are the noise levels that it can visit. `from_pure_noise`: it can begin where training's
    schedule has no signal left (zero terminal SNR, arXiv 2305.08891). `ancestral_posterior`: its steps are draws from
    the ancestral posterior, which dynamic negative guidance applies Bayes' rule to. `draws`: its steps draw random
    numbers. `reads_x0`: the scheduler knows networks that predict x0; else it is given the noise that their x0 means.
    `first_order`: each of its steps goes by one evaluation from a noise level to the next, which a scale that follows
    the steps needs, and re-noising along another prediction where no random numbers are drawn.
    `own_levels`: the scheduler is told the levels as its attributes, not by diffusers' options. `from_its_first`: it
    counts its order from the first of its steps, so one that begins later is laid out from there. `flow` is the stepper
    that takes the same steps along rectified flow, for solvers that have one.
    """

    scheduler: str
    options: Mapping[str, object] = field(default_factory=dict)
    levels: tuple[Levels, ...] = _ALL_LEVELS
    stepper: str = f"{_STEPPERS}:Stepper"
    from_pure_noise: bool = True
    ancestral_posterior: bool = False
    draws: bool = False
    first_order: bool = False
    reads_x0: bool = True
    own_levels: bool = False
    from_its_first: bool = False
    flow: str | None = None

    def stepper_along(self, path: str) -> str | None:
        """Its stepper along a noise path (pipeline/networks/noise_path.py); None where it has none."""
        return self.flow if path == "rectified_flow" else self.stepper


SOLVERS: dict[str, Solver] = {
    # DDIM steps through the training schedule's own timesteps.
    "ddim": Solver(
        f"{_SCHEDULERS}:DDIM",
        {"set_alpha_to_one": True, "clip_sample": False},
        levels=("native",),
        first_order=True,
        stepper=f"{_STEPPERS}:TimestepStepper",
    ),
    "euler": Solver("diffusers:EulerDiscreteScheduler", first_order=True, flow=f"{_STEPPERS}:FlowEuler"),
    "euler_ancestral": Solver(
        f"{_SCHEDULERS}:EulerAncestral",
        ancestral_posterior=True,
        draws=True,
        first_order=True,
        reads_x0=False,
        own_levels=True,
        flow=f"{_STEPPERS}:FlowAncestral",
    ),
    "smea_like": Solver(f"{_SCHEDULERS}:SmeaLike", draws=True, reads_x0=False, own_levels=True),
    # diffusers cannot end training's schedule without signal for these two: they would visit other noise levels.
    "heun": Solver("diffusers:HeunDiscreteScheduler", from_pure_noise=False),
    "dpmsolver++": Solver(
        "diffusers:DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "solver_order": 2}
    ),
    "dpmsolver++_2m_sde": Solver(
        "diffusers:DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "solver_order": 2}, draws=True
    ),
    "dpmsolver++_sde": Solver(
        f"{_SCHEDULERS}:StochasticDPMSolver",
        stepper=f"{_STEPPERS}:MidpointStepper",
        from_pure_noise=False,
        draws=True,
        reads_x0=False,
    ),
    "unipc": Solver("diffusers:UniPCMultistepScheduler"),
    # Linear multistep of order 4, as in k-diffusion.
    "lms": Solver("diffusers:LMSDiscreteScheduler", from_pure_noise=False, from_its_first=True),
}


def solvers_along(path: str) -> tuple[str, ...]:
    """The names of the solvers that step along a noise path."""
    return tuple(name for name, solver in SOLVERS.items() if solver.stepper_along(path) is not None)
