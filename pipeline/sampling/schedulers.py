"""The schedulers of the sampling loop by name, and where a picture starts.

They are diffusers' own, with four things added: noise levels of every kind for each (k-diffusion's formulas), x0
predictions where diffusers reads only noise and v, steps of DDIM that end where the next one begins, and random numbers
that come from a picture's own seed, drawn on the CPU, so that a picture does not depend on the batch it is drawn in.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSDEScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    UniPCMultistepScheduler,
)
from diffusers.schedulers.scheduling_ddim import DDIMSchedulerOutput
from diffusers.schedulers.scheduling_dpmsolver_sde import BrownianTreeNoiseSampler
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils.torch_utils import randn_tensor

from pipeline.errors import InputError
from pipeline.networks.noise_path import to_x0
from pipeline.study.sampler import Sampler
from pipeline.study.solvers import SOLVERS

Levels = npt.NDArray[np.float64]

_KARRAS_RHO = 7.0
# Added to a picture's seed where it starts from another picture. All arms share their seeds, so the start's own noise
# came from that seed, and adding it again would not destroy what is to be drawn over. A study's seeds are below this
# number. torch's generators on the CPU read the lower 32 bits of a seed alone: 2**32 more would change nothing.
IMAGE_TO_IMAGE_SEED = 2**31


def noise_levels(kind: str, lowest: float, highest: float, steps: int, rho: float | None = None) -> Levels:
    """`steps` noise levels sigma from `highest` down to `lowest`, as k-diffusion computes them.

    `kind` is karras (arXiv 2206.00364, equation 5), exponential or polyexponential; `rho` is the latter's exponent.
    """
    position = np.linspace(0, 1, steps)
    if kind == "karras":
        high, low = highest ** (1 / _KARRAS_RHO), lowest ** (1 / _KARRAS_RHO)
        levels: Levels = (high + position * (low - high)) ** _KARRAS_RHO
        return levels
    power = (1 - position) ** (rho if kind == "polyexponential" and rho else 1.0)
    levels = np.exp(power * (math.log(highest) - math.log(lowest)) + math.log(lowest))
    return levels


class _PolyexponentialLevels:
    """Makes a diffusers scheduler's exponential noise levels polyexponential."""

    rho = 1.0

    def _convert_to_exponential(self, in_sigmas: Any, num_inference_steps: int) -> Levels:
        lowest, highest = float(in_sigmas[-1]), float(in_sigmas[0])
        return noise_levels("polyexponential", lowest, highest, num_inference_steps, self.rho)


class _DDIM(DDIMScheduler):  # type: ignore[misc]
    """DDIM (arXiv 2010.02502, equation 12 with eta 0) that steps from each of its timesteps to the next.

    diffusers takes the next one to be T // steps below. Where the timesteps lie otherwise (28 or 64 steps of 1000
    trailing, or any number of them linspace), that lands beside the level that the network is told at the next step,
    and the last step leaves the noise of timestep 0 in the picture.
    """

    def step(self, output: Any, timestep: Any, sample: Any, generator: Any = None, return_dict: bool = True) -> Any:
        later = self.timesteps[self.timesteps < timestep]
        a2 = self.alphas_cumprod[timestep]
        a2_next = self.alphas_cumprod[later[0]] if len(later) else self.final_alpha_cumprod
        a, b, kind = a2**0.5, (1 - a2) ** 0.5, self.config.prediction_type
        x0 = to_x0(output, kind, sample, a, b)
        if kind == "v_prediction":
            noise = a * output + b * sample
        else:
            noise = output if kind == "epsilon" else (sample - a * x0) / b
        stepped = a2_next**0.5 * x0 + (1 - a2_next) ** 0.5 * noise
        return DDIMSchedulerOutput(stepped, x0) if return_dict else (stepped, x0)


class _Euler(_PolyexponentialLevels, EulerDiscreteScheduler):  # type: ignore[misc]
    pass


class _Multistep(_PolyexponentialLevels, DPMSolverMultistepScheduler):  # type: ignore[misc]
    pass


class _Heun(_PolyexponentialLevels, HeunDiscreteScheduler):  # type: ignore[misc]
    # It draws nothing, and diffusers' takes no generators.
    def step(self, output: Any, timestep: Any, sample: Any, generator: Any = None, return_dict: bool = True) -> Any:
        return super().step(output, timestep, sample, return_dict)


class _UniPC(_PolyexponentialLevels, UniPCMultistepScheduler):  # type: ignore[misc]
    # It draws nothing, and diffusers' takes no generators.
    def step(self, output: Any, timestep: Any, sample: Any, generator: Any = None, return_dict: bool = True) -> Any:
        return super().step(output, timestep, sample, return_dict)


class _StochasticDPMSolver(_PolyexponentialLevels, DPMSolverSDEScheduler):  # type: ignore[misc]
    """DPM-Solver++ (SDE), with a Brownian path for each picture from its own seed, and for x0 predictions too."""

    reads_x0 = False
    noise_sampler: Any

    def step(self, output: Any, timestep: Any, sample: Any, generator: Any = None, return_dict: bool = True) -> Any:
        if self.step_index is None:
            self._init_step_index(timestep)
        if self.noise_sampler is None and generator is not None:
            levels = self.sigmas[self.sigmas > 0]
            # On the CPU, because a path drawn on a GPU is another path.
            tree = BrownianTreeNoiseSampler(
                sample.float().cpu(), levels.min().item(), levels.max().item(), [g.initial_seed() for g in generator]
            )
            self.noise_sampler = lambda *ends: tree(*ends).to(sample)
        if self.reads_x0:
            sigma = self.sigmas[self.step_index] if self.state_in_first_order else self.mid_point_sigma
            output = (sample - output) / sigma
        return super().step(output, timestep, sample, return_dict)


class _EulerAncestral(EulerAncestralDiscreteScheduler):  # type: ignore[misc]
    """Euler ancestral with every kind of noise levels, and for x0 predictions too."""

    levels = "native"
    rho: float | None = None
    reads_x0 = False

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        super().set_timesteps(num_inference_steps, device)
        if self.levels == "native":
            return
        trained = ((1 - self.alphas_cumprod) / self.alphas_cumprod).sqrt().double().numpy()
        levels = noise_levels(self.levels, trained[0], trained[-1], num_inference_steps, self.rho)
        timesteps = np.interp(np.log(levels), np.log(trained), np.arange(len(trained)))
        self.timesteps = torch.from_numpy(timesteps).to(device, torch.float32)
        self.sigmas = torch.from_numpy(np.append(levels, 0.0)).float()

    def step(self, output: Any, timestep: Any, sample: Any, generator: Any = None, return_dict: bool = True) -> Any:
        if self.step_index is None:
            self._init_step_index(timestep)
        if self.reads_x0:
            output = (sample - output) / self.sigmas[self.step_index]
        return super().step(output, timestep, sample, generator, return_dict)


class _SmeaLike(_EulerAncestral):
    """Euler ancestral that visits the levels in the middle of the way twice: an approximation of NovelAI's SMEA.

    NovelAI has not published SMEA ("sinusoidal multipass Euler ancestral"). This shares what its name says: the number
    of passes at a noise level is 1 + round(sin(pi * position)). Between two passes the picture takes an ancestral step
    down and gets the noise back (RePaint's resampling, arXiv 2201.09865, section 4.2), which lets the parts of a
    canvas larger than the trained one agree before details are drawn.
    """

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        super().set_timesteps(num_inference_steps, device)
        position = np.arange(num_inference_steps) / max(1, num_inference_steps - 1)
        passes = torch.from_numpy(1 + np.sin(np.pi * position).round().astype(int))
        self.sigmas = torch.cat([self.sigmas[:-1].repeat_interleave(passes), self.sigmas[-1:]])
        self.timesteps = self.timesteps.repeat_interleave(passes.to(self.timesteps.device))
        # A timestep that occurs twice does not say which step it is.
        self.set_begin_index(0)

    def step(self, output: Any, timestep: Any, sample: Any, generator: Any = None, return_dict: bool = True) -> Any:
        if self.step_index is None:
            self._init_step_index(timestep)
        index, levels = self.step_index, self.sigmas
        if levels[index + 1] < levels[index]:
            return super().step(output, timestep, sample, generator, return_dict)
        lower = levels[levels < levels[index]].max()
        self.sigmas = levels.clone()
        self.sigmas[index + 1] = lower
        stepped, x0 = super().step(output, timestep, sample, generator, return_dict=False)
        self.sigmas = levels
        noise = randn_tensor(stepped.shape, generator=generator, device=stepped.device, dtype=stepped.dtype)
        return stepped + (levels[index] ** 2 - lower**2).sqrt() * noise, x0


# Which scheduler a solver's kind is (pipeline/study/solvers.py).
SCHEDULERS: dict[str, type[SchedulerMixin]] = {
    "ddim": _DDIM,
    "euler": _Euler,
    "euler_ancestral": _EulerAncestral,
    "smea_like": _SmeaLike,
    "heun": _Heun,
    "multistep": _Multistep,
    "stochastic": _StochasticDPMSolver,
    "unipc": _UniPC,
}
_FLAGS = {
    "karras": {"use_karras_sigmas": True},
    "exponential": {"use_exponential_sigmas": True},
    "polyexponential": {"use_exponential_sigmas": True},
}


def build_scheduler(sampler: Sampler, schedule: Mapping[str, object]) -> SchedulerMixin:
    """A diffusers scheduler for a training noise schedule (the configuration of a checkpoint's own scheduler)."""
    solver = SOLVERS[sampler.scheduler]
    kind = SCHEDULERS[solver.kind]
    # Levels that are not native run over the whole training schedule, which is "linspace" to diffusers.
    spacing = (sampler.spacing or "trailing") if sampler.levels == "native" else "linspace"
    options = {**solver.options, "timestep_spacing": spacing}
    if issubclass(kind, _EulerAncestral):
        attributes: dict[str, object] = {"levels": sampler.levels, "rho": sampler.rho}
    else:
        # A checkpoint's own scheduler may ask for Karras levels; what this study says counts.
        none = dict.fromkeys(("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"), False)
        options |= (none if len(solver.levels) > 1 else {}) | _FLAGS.get(sampler.levels, {})
        attributes = {} if sampler.rho is None else {"rho": sampler.rho}
    if schedule["prediction_type"] == "sample" and hasattr(kind, "reads_x0"):
        attributes["reads_x0"] = True
        options["prediction_type"] = "epsilon"
    scheduler = kind.from_config(schedule, **options)
    for name, value in attributes.items():
        setattr(scheduler, name, value)
    return scheduler


def initial_noise(seeds: Sequence[int], shape: tuple[int, int, int]) -> tuple[torch.Tensor, list[torch.Generator]]:
    """Unit noise [B, C, H, W] from one generator a seed, and the generators for whatever noise follows."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return torch.stack([torch.randn(shape, generator=g) for g in generators]), generators


@dataclass(frozen=True)
class Start:
    """Finished samples [B, C, H, W] to start from, the share of the steps to take, and noise to add to them first."""

    samples: torch.Tensor
    strength: float
    noise: float = 0.0


@dataclass(frozen=True)
class Beginning:
    """Where sampling begins: noisy samples `x` [B, C, H, W], the number of steps left out, and the random numbers."""

    x: torch.Tensor
    skipped: int
    generators: list[torch.Generator]


def steps_taken(steps: int, strength: float) -> int:
    """How many of the steps image-to-image takes (diffusers' rule). Raises InputError where it is none."""
    if not int(steps * strength):
        raise InputError(f"image_to_image.strength {strength:g} of {steps} steps is none; take more of either")
    return min(int(steps * strength), steps)


def begin(
    scheduler: SchedulerMixin,
    steps: int,
    seeds: Sequence[int],
    shape: tuple[int, int, int],
    device: torch.device,
    start: Start | None = None,
) -> Beginning:
    """Set a scheduler's steps and draw what it starts from: noise of `shape`, or `start` with noise added.

    With a `start` all random numbers come from seeds of their own (`IMAGE_TO_IMAGE_SEED`).
    """
    scheduler.set_timesteps(steps, device=device)
    if start is not None:
        seeds = [seed + IMAGE_TO_IMAGE_SEED for seed in seeds]
    noise, generators = initial_noise(seeds, shape)
    if start is None:
        if hasattr(scheduler, "set_begin_index"):
            # Timesteps that are rounded may occur twice, and of the first two diffusers would take the second.
            scheduler.set_begin_index(0)
        # Euler's start is sigma_max in its own convention; diffusers asks us to scale by init_noise_sigma.
        return Beginning(noise.to(device) * scheduler.init_noise_sigma, 0, generators)
    # Some schedulers evaluate the network twice a step, but for the last one.
    skipped = -(-(steps - steps_taken(steps, start.strength)) * len(scheduler.timesteps) // steps)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(skipped)
    samples = start.samples
    if start.noise:
        samples = samples + start.noise * randn_tensor(shape=samples.shape, generator=generators, device=device)
    timesteps = scheduler.timesteps[skipped : skipped + 1].repeat(len(samples))
    return Beginning(scheduler.add_noise(samples, noise.to(device), timesteps), skipped, generators)
