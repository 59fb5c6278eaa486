"""How an image is drawn, as conf/ describes it: the sampler, the canvas, and the image it starts from."""

import math
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.settings import Settings, inside_project
from pipeline.study.solvers import SOLVERS, Levels

Spacing = Literal["trailing", "leading", "linspace"]


class Sampler(Settings):
    """The sampler of an image set.

    `levels` are the noise levels it visits: native are the training schedule's, at timesteps laid out by `spacing`
    (Table 2 of arXiv 2305.08891; `trailing` unless given); the others run from the largest to the smallest noise
    level of training: karras (arXiv 2206.00364, equation 5, rho 7), exponential (equal steps of log sigma) and
    polyexponential (steps of log sigma by a power `rho` of the position; 1 is exponential).
    """

    scheduler: str
    steps: Annotated[int, Field(ge=1, le=1000)]
    levels: Levels = "native"
    spacing: Spacing | None = None
    rho: Annotated[float, Field(gt=0, le=20)] | None = None

    @field_validator("scheduler")
    @classmethod
    def _known_scheduler(cls, scheduler: str) -> str:
        if scheduler not in SOLVERS:
            raise ValueError(f"is unknown; known schedulers: {', '.join(SOLVERS)}")
        return scheduler

    @model_validator(mode="after")
    def _steps_are_as_many(self) -> "Sampler":
        # diffusers lays trailing steps out by adding up a rounded width, which of some numbers is one step too many,
        # below timestep 0.
        if self.levels == "native" and self.spacing in (None, "trailing") and _trailing(self.steps) != self.steps:
            fewer, more = (
                next(n for n in numbers if _trailing(n) == n)
                for numbers in (range(self.steps, 0, -1), range(self.steps, 1001))
            )
            raise ValueError(
                f"{self.steps} trailing steps cannot be laid out exactly: rounding makes them {_trailing(self.steps)}; "
                f"take {fewer} or {more} steps, or another spacing"
            )
        return self

    @model_validator(mode="after")
    def _levels_fit(self) -> "Sampler":
        fitting = SOLVERS[self.scheduler].levels
        if self.levels not in fitting:
            others = [name for name, solver in SOLVERS.items() if self.levels in solver.levels]
            raise ValueError(
                f"scheduler {self.scheduler} has no levels {self.levels}; it takes {', '.join(fitting)}; "
                f"schedulers with {self.levels}: {', '.join(others)}"
            )
        if (self.levels == "polyexponential") != (self.rho is not None):
            raise ValueError("rho is the exponent of levels polyexponential: those need it and others have none")
        if self.levels != "native" and self.spacing is not None:
            raise ValueError(f"spacing is for levels native; {self.levels} run over all noise levels of training")
        return self


def _trailing(steps: int) -> int:
    """How many timesteps `np.arange(1000, 0, -1000 / steps)` has, by numpy's own formula."""
    return math.ceil(1000 / (1000 / steps))


class Canvas(Settings):
    """The size of an arm's images in pixels; a multiple of the model's factor (8 for Stable Diffusion)."""

    width: Annotated[int, Field(ge=8, le=4096)]
    height: Annotated[int, Field(ge=8, le=4096)]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.width, self.height


class ImageToImage(Settings):
    """Image k starts from image k of another image set instead of from noise alone (arXiv 2108.01073).

    `from` is an arm of the study or a folder of shards. For an arm, `source` repeats its configuration
    (`source: ${arms.<name>}` in conf/), so that DVC sees when it changes. `strength` is the share of the steps that are
    taken, 1 is all of them; `noise` is the standard deviation of noise added to the start image itself.
    """

    start: str = Field(alias="from")
    source: dict[str, Any] | None = None
    strength: Annotated[float, Field(gt=0, le=1)]
    noise: Annotated[float, Field(ge=0, le=1)] = 0.0

    _inside = field_validator("start")(inside_project)

    @property
    def is_folder(self) -> bool:
        """Whether the start is a folder of shards rather than an arm."""
        return "/" in self.start
