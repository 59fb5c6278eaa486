"""The solvers of the sampling loop and what each can do, without torch (pipeline/sampling/schedulers.py runs them)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Levels = Literal["native", "karras", "exponential", "polyexponential"]

_ALL_LEVELS: tuple[Levels, ...] = ("native", "karras", "exponential", "polyexponential")


@dataclass(frozen=True)
class Solver:
    """One way to step from a noise level to the next: a `kind` of scheduler with its `options` in diffusers.

    `levels` are the noise levels that it can visit. `from_pure_noise`: it can begin where training's schedule has no
    signal left (zero terminal SNR, arXiv 2305.08891). `ancestral_posterior`: its steps are draws from the ancestral
    posterior, which dynamic negative guidance applies Bayes' rule to.
    """

    kind: str
    options: Mapping[str, object] = field(default_factory=dict)
    levels: tuple[Levels, ...] = _ALL_LEVELS
    from_pure_noise: bool = True
    ancestral_posterior: bool = False


SOLVERS: dict[str, Solver] = {
    # DDIM steps through the training schedule's own timesteps.
    "ddim": Solver("ddim", {"set_alpha_to_one": True, "clip_sample": False}, levels=("native",)),
    "euler": Solver("euler"),
    "euler_ancestral": Solver("euler_ancestral", ancestral_posterior=True),
    "smea_like": Solver("smea_like"),
    # diffusers cannot end training's schedule without signal for these two: they would visit other noise levels.
    "heun": Solver("heun", from_pure_noise=False),
    "dpmsolver++": Solver("multistep", {"algorithm_type": "dpmsolver++", "solver_order": 2}),
    "dpmsolver++_2m_sde": Solver("multistep", {"algorithm_type": "sde-dpmsolver++", "solver_order": 2}),
    "dpmsolver++_sde": Solver("stochastic", from_pure_noise=False),
    "unipc": Solver("unipc"),
}
