"""The schedulers that are diffusers' own with something added, and the noise levels of every kind.

Added are: noise levels where diffusers has none (k-diffusion's formulas), x0 predictions where it reads only noise
and v, steps of DDIM that end where the next one begins, and random numbers that come from an image's own seed, drawn
on the CPU, so that an image does not depend on the batch it is drawn in. pipeline/sampling/steppers.py runs them.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverSDEScheduler,
    EulerAncestralDiscreteScheduler,
)
from diffusers.schedulers.scheduling_ddim import DDIMSchedulerOutput
from diffusers.schedulers.scheduling_dpmsolver_sde import BrownianTreeNoiseSampler
from diffusers.utils.torch_utils import randn_tensor

from pipeline.networks.noise_path import to_x0

Levels = npt.NDArray[np.float64]

_KARRAS_RHO = 7.0


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


class DDIM(DDIMScheduler):  # type: ignore[misc]
    """DDIM (arXiv 2010.02502, equation 12 with eta 0) that steps from each of its timesteps to the next.

    diffusers takes the next one to be T // steps below. Where the timesteps lie otherwise (28 or 64 steps of 1000
    trailing, or any number of them linspace), that lands beside the level that the network is told at the next step,
    and the last step leaves the noise of timestep 0 in the image.
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


class StochasticDPMSolver(DPMSolverSDEScheduler):  # type: ignore[misc]
    """DPM-Solver++ (SDE), with a Brownian path for each image from its own seed, and for x0 predictions too."""

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


class EulerAncestral(EulerAncestralDiscreteScheduler):  # type: ignore[misc]
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


class SmeaLike(EulerAncestral):
    """Euler ancestral that visits the levels in the middle of the way twice: an approximation of NovelAI's SMEA.

    NovelAI has not published SMEA ("sinusoidal multipass Euler ancestral"). This shares what its name says: the number
    of passes at a noise level is 1 + round(sin(pi * position)). Between two passes the image takes an ancestral step
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
