"""Dynamic negative guidance (arXiv 2410.14398): a scale that follows how probable the negative prompt is.

Along the chain p estimates the probability that the image belongs to the negative prompt N, and

    guided = main + lam0 p / (1 - p) (main - negative),    lam0 = scale - 1.

p starts at a prior and is updated after each ancestral step with Bayes' rule over the two Gaussian posteriors of
that step, tempered and shifted as the authors' code does it (algorithm 1 and `compute_posterior_DNG`):

    p <- clamp(p exp((-T d + offset) / (2 v)), p_min, p_max),   d = |x' - mu_N|^2 - |x' - mu_main|^2

with v the variance of the step. p fixed at 1/2 is the static negative prompt, p -> 0 no guidance.
"""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from pipeline.guidance.posterior import Followed, squared_distances
from pipeline.guidance.scale_schedules import Moment

if TYPE_CHECKING:  # a study is composed without torch
    import torch

Probability = Annotated[float, Field(ge=0, lt=1)]


class Dynamic(Followed):
    """Settings of the recursion; the defaults are the authors' for CIFAR-10 (prior and p_max there: 0.01 and 0.8).

    `offset` is in the units of squared distances of samples of unit total variance.
    """

    ancestral: ClassVar[bool] = True

    name: Literal["dynamic"]
    prior: Probability = 0.01
    temperature: Annotated[float, Field(ge=0)] = 0.2
    offset: float = 2e-4
    # Where p was 0, the exponential of a large exponent would make it no number.
    p_min: Annotated[float, Field(gt=0, lt=1)] = 1e-6
    p_max: Probability = 0.8

    @model_validator(mode="after")
    def _ordered(self) -> "Dynamic":
        if not self.p_min <= self.prior <= self.p_max:
            raise ValueError(f"needs p_min <= prior <= p_max, not {self.p_min:g}, {self.prior:g}, {self.p_max:g}")
        return self

    def begin(self) -> float:
        return self.prior

    def weight(self, state: "torch.Tensor", scale: float) -> "torch.Tensor":
        return (scale - 1) * (state / (1 - state))

    def updated(
        self,
        state: "torch.Tensor",
        at: Moment,
        x: "torch.Tensor",
        after: "torch.Tensor",
        main_x0: "torch.Tensor",
        reference_x0: "torch.Tensor",
        scale: float,
    ) -> "torch.Tensor":
        """p [B] after the step; the last one (sigma' = 0) has no variance and leaves p as it is."""
        if at.next_sigma == 0:
            return state
        variance, (from_main, from_negative) = squared_distances(at, x, after, main_x0, reference_x0)
        d = from_negative - from_main
        # The authors add their offset to distances of samples of unit total variance: shrink by a'^2 = 1 / (1 + s'^2).
        unit = 1 / (1 + at.next_sigma**2)
        exponent = (-self.temperature * unit * d + self.offset) / (2 * unit * variance)
        return (state * exponent.exp()).clamp(self.p_min, self.p_max)
