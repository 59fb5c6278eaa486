"""Post-processes that push the guided prediction away from those of earlier steps: no further evaluation.

They need no reference, so an arm without guidance may have them. A solver that evaluates twice a step counts both
evaluations as steps.
"""

import math
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from pipeline.guidance.postprocess.post_process import Evaluation, Memory, PostProcess, Space, per_image
from pipeline.guidance.scale_schedules import Fraction

if TYPE_CHECKING:  # a study is composed without torch
    import torch


class Momentum(PostProcess):
    """Momentum guidance (MG, arXiv 2602.20360, equations 12 and 13), after the terms are summed.

    With the guided velocity v and the running average m, which starts as the first v,

        guided = v + `push` (v - m),    then    m <- (1 - `keep`) v + keep m.

    The paper calls them alpha and beta. Its code is not published: the equations are as independent implementations
    quote them, and so are the defaults, the paper's example for FLUX. It is about flow networks; `space` is v unless
    given. push 0 is none, bit for bit, and so is the first step.
    """

    acts_on: ClassVar[Literal["directions", "result"]] = "result"
    needs_terms: ClassVar[bool] = False

    name: Literal["momentum"]
    push: Annotated[float, Field(ge=0, le=10)] = 0.5
    keep: Annotated[float, Field(ge=0, lt=1)] = 0.6
    space: Space = "v"

    def finished(self, guided: "torch.Tensor", seen: Evaluation, memory: Memory) -> "torch.Tensor":
        average: torch.Tensor = memory.get("average", guided)
        memory["average"] = (1 - self.keep) * guided + self.keep * average
        return guided + self.push * (guided - average)


class HiGS(PostProcess):
    """History-guided sampling (arXiv 2509.22300, equations 6 and 8, algorithms 2 and 3), after the terms are summed.

    With the guided x0 prediction D and the running average g <- `recent` D + (1 - recent) g, which starts at zero, the
    difference D - g of every step but the first is added to D, with

    - its part parallel to D multiplied by `eta`,
    - its low frequencies taken out: in the orthonormal cosine transform of each channel by
      sigmoid(50 (R - `cutoff`)), R^2 = (i / H)^2 + (j / W)^2,
    - the weight `weight` sqrt((t - low) / (high - low)) for `low` < t <= `high`, none outside, t = sigma / (1 + sigma).

    The average takes D as it was before the push. The equations are as an independent implementation quotes them; the
    paper's code was not at hand. eta 0 and the other defaults are its settings for the Fréchet distance. `space` is x0
    unless given. weight 0 is none, bit for bit.
    """

    acts_on: ClassVar[Literal["directions", "result"]] = "result"
    needs_terms: ClassVar[bool] = False

    name: Literal["higs"]
    weight: Annotated[float, Field(ge=0, le=10)] = 1.75
    eta: Fraction = 0.0
    recent: Annotated[float, Field(gt=0, le=1)] = 0.75
    cutoff: Annotated[float, Field(ge=0, le=2)] = 0.05
    low: Fraction = 0.4
    high: Fraction = 1.0
    space: Space = "x0"

    @model_validator(mode="after")
    def _ordered(self) -> "HiGS":
        if self.low >= self.high:
            raise ValueError(f"low ({self.low:g}) must be below high ({self.high:g}), both sigma / (1 + sigma)")
        return self

    def finished(self, guided: "torch.Tensor", seen: Evaluation, memory: Memory) -> "torch.Tensor":
        history: torch.Tensor | None = memory.get("history")
        memory["history"] = self.recent * guided + (0 if history is None else (1 - self.recent) * history)
        weight = self._weight_at(seen.at.sigma)
        if history is None or weight == 0:
            return guided
        axes, difference = per_image(guided), guided - history
        along = (difference * guided).sum(axes, keepdim=True) / guided.square().sum(axes, keepdim=True) * guided
        return guided + weight * high_pass(difference - (1 - self.eta) * along, self.cutoff)

    def _weight_at(self, sigma: float) -> float:
        t = sigma / (1 + sigma)
        return self.weight * math.sqrt((t - self.low) / (self.high - self.low)) if self.low < t <= self.high else 0.0


# How steeply the filter of HiGS rises at its cutoff (appendix F of the paper).
_SHARPNESS = 50.0


def high_pass(values: "torch.Tensor", cutoff: float) -> "torch.Tensor":
    """[B, C, H, W] without the cosine waves of frequencies below `cutoff`, where 1 is one half wave a position."""
    height, width = values.shape[-2:]
    down, across = (_cosines(n, values) for n in (height, width))
    i, j = (values.new_tensor(range(n)) / n for n in (height, width))
    kept = (_SHARPNESS * ((i.square()[:, None] + j.square()).sqrt() - cutoff)).sigmoid()
    filtered: torch.Tensor = down.mT @ (kept * (down @ values @ across.mT)) @ across
    return filtered


def _cosines(n: int, like: "torch.Tensor") -> "torch.Tensor":
    """The orthonormal cosine transform (DCT-II) of n values, [n, n], one wave a row."""
    position, frequency = like.new_tensor(range(n)), like.new_tensor(range(n))[:, None]
    waves: torch.Tensor = (math.pi / n * (position + 0.5) * frequency).cos() * (2 / n) ** 0.5
    waves[0] /= 2**0.5
    return waves
