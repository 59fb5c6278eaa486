"""Starts: how a sample begins, and what a step may not have changed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from diffusers.utils.torch_utils import randn_tensor

from pipeline.errors import InputError
from pipeline.guidance.scale_schedules import Moment
from pipeline.sampling.steppers import Stepper

# Added to an image's seed where it starts from another image. All arms share their seeds, so the start's own noise
# came from that seed, and adding it again would not destroy what is to be drawn over. A study's seeds are below this
# number. torch's generators on the CPU read the lower 32 bits of a seed alone: 2**32 more would change nothing.
IMAGE_TO_IMAGE_SEED = 2**31


@dataclass(frozen=True)
class Beginning:
    """Where sampling begins: noisy samples `x` [B, C, H, W] in the stepper's own scale, their unit `noise`, the number
    of evaluations left out, and the random numbers."""

    x: torch.Tensor
    noise: torch.Tensor
    skipped: int
    generators: list[torch.Generator]


class Start(Protocol):
    """How sampling begins, with a stepper whose steps it lays out."""

    def begin(
        self, stepper: Stepper, steps: int, seeds: Sequence[int], shape: tuple[int, int, int], device: torch.device
    ) -> Beginning:
        """Lay out the steps and draw what they start from, one sample of `shape` for each seed. Raises InputError."""
        ...

    def kept(self, after: torch.Tensor, at: Moment, stepper: Stepper, beginning: Beginning) -> torch.Tensor:
        """The samples after the step at `at` [B, C, H, W], with what that step may not have changed put back."""
        ...


class FromNoise:
    """Noise alone."""

    def begin(
        self, stepper: Stepper, steps: int, seeds: Sequence[int], shape: tuple[int, int, int], device: torch.device
    ) -> Beginning:
        stepper.lay_out(steps, device)
        noise, generators = initial_noise(seeds, shape)
        stepper.begin_at(0)
        noise = noise.to(device)
        return Beginning(stepper.from_noise(noise), noise, 0, generators)

    def kept(self, after: torch.Tensor, at: Moment, stepper: Stepper, beginning: Beginning) -> torch.Tensor:
        return after


@dataclass(frozen=True)
class FromImages:
    """Finished samples [B, C, H, W] to start from, the share of the steps to take, and noise to add to them first.

    All random numbers come from separate seeds (`IMAGE_TO_IMAGE_SEED`). Every value may change.
    """

    samples: torch.Tensor
    strength: float
    noise: float = 0.0

    def begin(
        self, stepper: Stepper, steps: int, seeds: Sequence[int], shape: tuple[int, int, int], device: torch.device
    ) -> Beginning:
        evaluations = stepper.lay_out(steps, device)
        noise, generators = initial_noise([seed + IMAGE_TO_IMAGE_SEED for seed in seeds], shape)
        # Some solvers evaluate the network twice a step, but for the last one.
        skipped = -(-(steps - steps_taken(steps, self.strength)) * evaluations // steps)
        stepper.begin_at(skipped)
        samples = self.samples
        if self.noise:
            samples = samples + self.noise * randn_tensor(shape=samples.shape, generator=generators, device=device)
        noise = noise.to(device)
        return Beginning(stepper.noised(samples, noise), noise, skipped, generators)

    def kept(self, after: torch.Tensor, at: Moment, stepper: Stepper, beginning: Beginning) -> torch.Tensor:
        return after


@dataclass(frozen=True)
class Inpainting(FromImages):
    """Finished samples that are changed inside a mask alone, as diffusers' inpainting pipelines do it.

    `mask` [B, 1 or C, H, W] in [0, 1] is 1 where steps may change everything; after each step the rest is put back with
    the noise of the next level, always the same, and between 0 and 1 the two are mixed (RePaint without resampling,
    arXiv 2201.09865). It is None where the network itself reads the mask. At strength 1 nothing of the start image is
    in what sampling begins with.
    """

    mask: torch.Tensor | None = None

    def begin(
        self, stepper: Stepper, steps: int, seeds: Sequence[int], shape: tuple[int, int, int], device: torch.device
    ) -> Beginning:
        beginning = super().begin(stepper, steps, seeds, shape, device)
        return beginning if self.strength < 1 else replace(beginning, x=stepper.from_noise(beginning.noise))

    def kept(self, after: torch.Tensor, at: Moment, stepper: Stepper, beginning: Beginning) -> torch.Tensor:
        if self.mask is None:
            return after
        return (1 - self.mask) * stepper.noised_after(self.samples, beginning.noise, at) + self.mask * after


def initial_noise(seeds: Sequence[int], shape: tuple[int, int, int]) -> tuple[torch.Tensor, list[torch.Generator]]:
    """Unit noise [B, C, H, W] from one generator a seed, and the generators for whatever noise follows."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return torch.stack([torch.randn(shape, generator=g) for g in generators]), generators


def steps_taken(steps: int, strength: float) -> int:
    """How many of the steps image-to-image takes (diffusers' rule). Raises InputError where it is none."""
    if not int(steps * strength):
        raise InputError(f"image_to_image.strength {strength:g} of {steps} steps is none; take more of either")
    return min(int(steps * strength), steps)
