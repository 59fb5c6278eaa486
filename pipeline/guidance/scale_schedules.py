"""Scale schedules: how much of a term's scale acts at a step.

A schedule is a factor on s - 1, so that 0 means no guidance and 1 the whole scale: s_t = 1 + factor (s - 1).
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.settings import Settings

Fraction = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class Moment:
    """Where sampling is: step `index` of `steps`, from noise level `sigma` = b / a to `next_sigma`."""

    index: int
    steps: int
    timestep: float
    sigma: float
    next_sigma: float


class Constant(Settings):
    """The whole scale at every step."""

    name: Literal["constant"] = "constant"

    def factor(self, at: Moment) -> float:
        return 1.0


class NoiseInterval(Settings):
    """The whole scale for noise levels in (lo, hi], none outside (arXiv 2404.07724, equation 6)."""

    name: Literal["interval"]
    lo: Annotated[float, Field(ge=0)]
    hi: Annotated[float, Field(gt=0)]

    @model_validator(mode="after")
    def _lo_below_hi(self) -> "NoiseInterval":
        if self.lo >= self.hi:
            raise ValueError(f"lo ({self.lo:g}) must be below hi ({self.hi:g}); guidance acts for sigma in (lo, hi]")
        return self

    def factor(self, at: Moment) -> float:
        return float(self.lo < at.sigma <= self.hi)


class Window(Settings):
    """The whole scale from share `start` of the steps until share `stop`, rounded down as diffusers' guiders do."""

    name: Literal["window"]
    start: Fraction = 0.0
    stop: Fraction = 1.0

    @model_validator(mode="after")
    def _start_before_stop(self) -> "Window":
        if self.start >= self.stop:
            raise ValueError(f"start ({self.start:g}) must be below stop ({self.stop:g}), both shares of the steps")
        return self

    def factor(self, at: Moment) -> float:
        return float(int(self.start * at.steps) <= at.index < int(self.stop * at.steps))


class Steps(Settings):
    """A factor for each part of the steps, all parts alike: of as many as there are steps, one for each."""

    name: Literal["steps"]
    factors: Annotated[tuple[float, ...], Field(min_length=1)]

    def factor(self, at: Moment) -> float:
        return self.factors[min(at.index * len(self.factors) // at.steps, len(self.factors) - 1)]


class Ramp(Settings):
    """From factor `begin` at the first step to `end` at the last, along a line or half a cosine (arXiv 2404.13040)."""

    name: Literal["linear", "cosine"]
    begin: Fraction = 0.0
    end: Fraction = 1.0

    def factor(self, at: Moment) -> float:
        share = at.index / max(at.steps - 1, 1)
        if self.name == "cosine":
            share = (1 - math.cos(math.pi * share)) / 2
        return self.begin + (self.end - self.begin) * share
