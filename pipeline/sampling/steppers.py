"""Steppers: how a solver's scheduler is run, from where it begins to each of its steps.

The loop sees only a stepper: its moments, what the network reads of a sample, and the step.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from types import MappingProxyType
from typing import Any, cast

import torch
from diffusers.utils.torch_utils import randn_tensor

from pipeline.guidance.scale_schedules import Moment
from pipeline.networks.noise_path import RECTIFIED_FLOW, VARIANCE_PRESERVING, NoisePath
from pipeline.networks.noise_schedule import most_noise, noise_to_signal
from pipeline.sampling.schedulers import Levels, noise_levels
from pipeline.study.sampler import Sampler
from pipeline.study.solvers import SOLVERS

_FLAGS = {
    "karras": {"use_karras_sigmas": True},
    "exponential": {"use_exponential_sigmas": True},
    "polyexponential": {"use_exponential_sigmas": True},
}


def build_stepper(
    sampler: Sampler,
    schedule: Mapping[str, object],
    path: NoisePath = VARIANCE_PRESERVING,
    levels: Mapping[str, Any] = MappingProxyType({}),
) -> "Stepper":
    """The stepper of a sampler along a noise path.

    `schedule` is the configuration of a checkpoint's own scheduler: its training noise schedule and prediction type.
    `levels` is what the scheduler is told of its levels besides their number (`steps_of` of the network).
    """
    place = SOLVERS[sampler.scheduler].stepper_along(path.name)
    assert place is not None, f"{sampler.scheduler} does not step along {path.name}"  # preflight refuses it
    return cast("Stepper", _imported(place)(sampler, schedule, levels))


def _imported(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


class Stepper:
    """A solver of diffusers whose scheduler lists its noise levels, along the variance preserving path."""

    path: NoisePath = VARIANCE_PRESERVING

    def __init__(
        self, sampler: Sampler, schedule: Mapping[str, object], levels: Mapping[str, Any] = MappingProxyType({})
    ):
        self.solver = SOLVERS[sampler.scheduler]
        self._told = levels
        self.scheduler = self._built(sampler, schedule)
        self._first = 0

    def _built(self, sampler: Sampler, schedule: Mapping[str, object]) -> Any:
        solver = self.solver
        # Levels that are not native run over the whole training schedule, which is "linspace" to diffusers.
        spacing = (sampler.spacing or "trailing") if sampler.levels == "native" else "linspace"
        options = {**solver.options, "timestep_spacing": spacing}
        attributes: dict[str, object] = {}
        if solver.own_levels:
            attributes |= {"levels": sampler.levels, "rho": sampler.rho}
        else:
            # A checkpoint's own scheduler may ask for Karras levels; what this study says counts.
            none = dict.fromkeys(("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"), False)
            options |= (none if len(solver.levels) > 1 else {}) | _FLAGS.get(sampler.levels, {})
            # In double precision, and with an exponent: exponential is polyexponential by 1.
            attributes["_convert_to_exponential"] = partial(_polyexponential, sampler.rho or 1.0)
        if schedule["prediction_type"] == "sample" and not solver.reads_x0:
            attributes["reads_x0"] = True
            options["prediction_type"] = "epsilon"
        scheduler = _imported(solver.scheduler).from_config(schedule, **options)
        for name, value in attributes.items():
            setattr(scheduler, name, value)
        return scheduler

    def lay_out(self, steps: int, device: torch.device) -> int:
        """Lay the steps out; returns the number of network evaluations they take, for some solvers two a step."""
        self.scheduler.set_timesteps(steps, device=device, **self._told)
        self._first = 0
        return len(self.scheduler.timesteps)

    def begin_at(self, first: int) -> None:
        """Leave the evaluations before number `first` out."""
        self._first = first
        if self.solver.from_its_first:
            self.scheduler.timesteps, self.scheduler.sigmas = (
                self.scheduler.timesteps[first:],
                self.scheduler.sigmas[first:],
            )
            self._first = 0
        # Timesteps that are rounded may occur twice, and of the first two diffusers would take the second.
        self.scheduler.set_begin_index(self._first)

    def levels(self) -> list[float]:
        """The noise level sigma = b / a of each evaluation."""
        levels: list[float] = self.scheduler.sigmas.tolist()[: len(self.scheduler.timesteps)]
        return levels

    def moments(self) -> list[Moment]:
        """The evaluations that are taken, in order.

        Solvers of second order evaluate the network twice a step; each evaluation is a separate moment.
        """
        timesteps, levels = self.scheduler.timesteps.tolist()[self._first :], self.levels()[self._first :]
        ends = [*levels[1:], 0.0]
        return [
            Moment(k, len(levels), t, s, e) for k, (t, s, e) in enumerate(zip(timesteps, levels, ends, strict=True))
        ]

    def from_noise(self, noise: torch.Tensor) -> torch.Tensor:
        """What sampling begins with, in the solver's own scale, from unit noise [B, C, H, W]."""
        # Euler's start is sigma_max in its own convention; diffusers asks us to scale by init_noise_sigma.
        return cast(torch.Tensor, noise * self.scheduler.init_noise_sigma)

    def noised(self, x0: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Finished samples with the noise of the first evaluation, in the solver's own scale, all [B, C, H, W]."""
        timesteps = self.scheduler.timesteps[self._first : self._first + 1].repeat(len(x0))
        return cast(torch.Tensor, self.scheduler.add_noise(x0, noise, timesteps))

    def noised_after(self, x0: torch.Tensor, noise: torch.Tensor, at: Moment) -> torch.Tensor:
        """Finished samples with the noise that is left after the step at `at`, in the solver's own scale."""
        if at.index + 1 == at.steps:
            return x0
        signal, share = self.path.signal_and_noise(at.next_sigma)
        # What the solver's own scale is, its scheduler says of the number 1 at the next evaluation.
        unit = self.scaled(torch.ones(1, device=x0.device), replace(at, index=at.index + 1))
        return (signal * x0 + share * noise) / unit

    def scaled(self, x: torch.Tensor, at: Moment) -> torch.Tensor:
        """A sample of the solver's own scale as it lies on the noise path, [B, C, H, W]."""
        return cast(torch.Tensor, self.scheduler.scale_model_input(x, self._timestep(at)))

    def step(
        self, guided: torch.Tensor, x: torch.Tensor, at: Moment, generators: Sequence[torch.Generator]
    ) -> torch.Tensor:
        """The sample after a step from `x`, in the solver's own scale, by the guided prediction, all [B, C, H, W].

        Random numbers come from `generators`, one for each sample.
        """
        more = {"generator": generators} if self.solver.draws else {}
        stepped = self.scheduler.step(guided, self._timestep(at), x, return_dict=False, **more)
        return cast(torch.Tensor, stepped[0])

    def signal_after(self, at: Moment) -> float:
        """The share of x0 in the sample after the step, in the solver's own scale, of solvers of first order."""
        return 1.0  # those of diffusers that list noise levels keep samples as x0 + sigma e

    def _timestep(self, at: Moment) -> torch.Tensor:
        # An element of the scheduler's own list: it may be on another device, and is compared with the list.
        return cast(torch.Tensor, self.scheduler.timesteps[self._first + at.index])


def _polyexponential(rho: float, in_sigmas: Any, num_inference_steps: int) -> Levels:
    return noise_levels("polyexponential", float(in_sigmas[-1]), float(in_sigmas[0]), num_inference_steps, rho)


class TimestepStepper(Stepper):
    """A solver that goes from timestep to timestep of training, and whose scheduler lists no noise levels (DDIM)."""

    def levels(self) -> list[float]:
        alphas = self.scheduler.alphas_cumprod[self.scheduler.timesteps.cpu()]
        return cast(list[float], noise_to_signal(alphas).tolist())

    def begin_at(self, first: int) -> None:
        self._first = first  # each of its timesteps says by itself where it is

    def signal_after(self, at: Moment) -> float:
        return self.path.signal_and_noise(at.next_sigma)[0]


class MidpointStepper(Stepper):
    """A solver whose second evaluation is half way between two levels (in log sigma), which its list leaves out."""

    def levels(self) -> list[float]:
        levels = super().levels()
        levels[1::2] = [(a * b) ** 0.5 for a, b in zip(levels[::2], levels[1::2], strict=False)]
        return levels


class FlowEuler(Stepper):
    """Euler along rectified flow, x = (1 - t) x0 + t e (arXiv 2209.03003), by diffusers' scheduler.

    That one calls t sigma. Its first t is 1, where sigma = t / (1 - t) has no end: it is the most noise that there is.
    """

    path = RECTIFIED_FLOW

    def _built(self, sampler: Sampler, schedule: Mapping[str, object]) -> Any:
        self._prediction = str(schedule.get("prediction_type", "flow_prediction"))
        return _imported("diffusers:FlowMatchEulerDiscreteScheduler").from_config(
            {key: value for key, value in schedule.items() if key != "prediction_type"}
        )

    def levels(self) -> list[float]:
        return [most_noise() if t >= 1 else min(t / (1 - t), most_noise()) for t in super().levels()]

    def from_noise(self, noise: torch.Tensor) -> torch.Tensor:
        return noise

    def noised(self, x0: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        timesteps = self.scheduler.timesteps[self._first : self._first + 1].repeat(len(x0))
        return cast(torch.Tensor, self.scheduler.scale_noise(x0, timesteps, noise))

    def scaled(self, x: torch.Tensor, at: Moment) -> torch.Tensor:
        return x

    def signal_after(self, at: Moment) -> float:
        return self.path.signal_and_noise(at.next_sigma)[0]

    def step(
        self, guided: torch.Tensor, x: torch.Tensor, at: Moment, generators: Sequence[torch.Generator]
    ) -> torch.Tensor:
        x0 = self.path.to_x0(guided, self._prediction, x, at.sigma)
        return super().step(self.path.from_x0(x0, "flow_prediction", x, at.sigma), x, at, generators)


class FlowAncestral(FlowEuler):
    """Ancestral steps along rectified flow: draws from the posterior of the next sample, given this one and its x0.

    x / (1 - t) = x0 + sigma e is a sample of the variance exploding form, in which k-diffusion's Euler ancestral draws
    from the same posterior: mean r x + (1 - r) x0 with r = sigma'^2 / sigma^2, variance sigma'^2 (1 - r), DDPM's (arXiv
    2006.11239, equation 7). diffusers' own stochastic steps along rectified flow draw new noise in full instead.
    """

    def step(
        self, guided: torch.Tensor, x: torch.Tensor, at: Moment, generators: Sequence[torch.Generator]
    ) -> torch.Tensor:
        x0 = self.path.to_x0(guided, self._prediction, x, at.sigma)
        kept = (at.next_sigma / at.sigma) ** 2
        (signal, _), (next_signal, _) = (self.path.signal_and_noise(sigma) for sigma in (at.sigma, at.next_sigma))
        noise: torch.Tensor = randn_tensor(x.shape, generator=list(generators), device=x.device, dtype=x.dtype)
        after: torch.Tensor = kept * x / signal + (1 - kept) * x0 + at.next_sigma * (1 - kept) ** 0.5 * noise
        return next_signal * after
