"""Feedback guidance (FBG, arXiv 2506.06085): a scale that is large while the image does not show its prompt.

The network's conditional density is taken for a mixture of the true one, by the share `trust`, and the unconditional
one. Then the guided score is empty + s (main - empty) with

    s = p / (p - (1 - trust)),

where p is the ratio of the posteriors of the prompt: 1 at first, and updated after each step from x to x' by

    log p <- clamp(log p - temperature / (2 v) (|x' - mu_main|^2 - |x' - mu_empty|^2) + offset, log p_min, 3)

with the means and the variance v of the ancestral step (posterior.py). The offset is negative, so that p falls until
the steps say that the image shows the prompt. p_min = (1 - trust) S / (S - 1) is where s reaches the arm's scale S.
Checked against the authors' code, where trust is pi, S is `max_guidance`, and steps may be deterministic.
"""

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from pipeline.guidance.posterior import Followed, squared_distances
from pipeline.guidance.scale_schedules import Moment

if TYPE_CHECKING:  # a study is composed without torch
    import torch

# The authors' bound of log p from above, and the scale that s is to reach at `start`.
_MOST = 3.0
_REACHED = 3.0


class Feedback(Followed):
    """Settings of the recursion for the empty prompt; the arm's scale is the largest that it may ask for.

    `start` is the share of the steps, counted from the end, at which s reaches 3 if the steps say nothing: it sets the
    offset, log((1 - trust) 3 / 2) / ((1 - start) steps) a step. `temperature` is tau, in units of squared x0, so it is
    each network's own; the authors take |offset| 2 v / 10, with v of a step a little later than `start`. A scale of 1
    means no guidance. trust and start are the defaults of the authors' sampler.
    """

    name: Literal["feedback"]
    trust: Annotated[float, Field(gt=0.34, lt=1)] = 0.95
    start: Annotated[float, Field(ge=0, lt=1)] = 0.5
    temperature: Annotated[float, Field(ge=0)]

    def begin(self) -> float:
        return 0.0

    def weight(self, state: "torch.Tensor", scale: float) -> "torch.Tensor":
        p = state.clamp(min=self._least(scale)).exp()
        return (1 - self.trust) / (p - (1 - self.trust))

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
        """log p [B] after the step; the last one (sigma' = 0) has no variance and leaves it as it is."""
        if at.next_sigma == 0:
            return state
        variance, (from_main, from_empty) = squared_distances(at, x, after, main_x0, reference_x0)
        offset = math.log((1 - self.trust) * _REACHED / (_REACHED - 1)) / ((1 - self.start) * at.steps)
        log_p = state - self.temperature / (2 * variance) * (from_main - from_empty) + offset
        return log_p.clamp(self._least(scale), _MOST)

    def _least(self, scale: float) -> float:
        """log p_min, where s is `scale`; above 1."""
        return math.log((1 - self.trust) * scale / (scale - 1))
