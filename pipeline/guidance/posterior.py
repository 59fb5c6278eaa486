"""Scales that follow a posterior: what the steps that were taken say about a text's probability."""

from typing import TYPE_CHECKING, ClassVar

from pipeline.guidance.scale_schedules import Moment
from pipeline.settings import Settings

if TYPE_CHECKING:  # a study is composed without torch
    import torch


class Followed(Settings):
    """A schedule whose weight follows a number per image that every step updates.

    `ancestral`: each step must be a draw from the ancestral posterior.
    """

    ancestral: ClassVar[bool] = False
    name: str

    def begin(self) -> float:
        """The number before the first step."""
        raise NotImplementedError

    def weight(self, state: "torch.Tensor", scale: float) -> "torch.Tensor":
        """s - 1 of this step [B], of a term with this `scale`."""
        raise NotImplementedError

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
        """The number [B] after the step from `x` to `after`, [B, C, H, W] as x0 + sigma e."""
        raise NotImplementedError


def squared_distances(
    at: Moment, x: "torch.Tensor", after: "torch.Tensor", *x0: "torch.Tensor"
) -> tuple[float, list["torch.Tensor"]]:
    """The variance of the ancestral step and, for each x0, the squared distances [B] of its mean to where it went.

    In variance-exploding form, samples x0 + sigma e, the ancestral posterior from sigma to sigma' given x0 is a
    Gaussian of mean r x + (1 - r) x0 with r = sigma'^2 / sigma^2 and variance sigma'^2 (1 - r), exactly DDPM's.
    """
    ratio = (at.next_sigma / at.sigma) ** 2
    means = (ratio * x + (1 - ratio) * end for end in x0)
    return at.next_sigma**2 * (1 - ratio), [(after - mean).square().flatten(1).sum(1) for mean in means]
