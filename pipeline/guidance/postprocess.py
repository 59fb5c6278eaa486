"""What may be done to a guided prediction, or to the directions it is made of, before the sampler steps.

Rescale and APG depend on the parametrisation. They act on the main network's output as it is (noise, v or x0), which
is where diffusers' pipelines and guiders apply them; on a network that predicts x0 that is the space of the APG paper.
"""

import inspect
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.guidance.scale_schedules import Fraction, Moment
from pipeline.settings import Settings

if TYPE_CHECKING:  # a study is composed without torch and diffusers
    import torch
    from diffusers.guiders import BaseGuidance


class Rescale(Settings):
    """Give the guided prediction back the standard deviation of the main one, by the share `phi`.

    arXiv 2305.08891, section 3.4 (equations 15 and 16); `guidance_rescale` of diffusers.
    """

    name: Literal["rescale"]
    phi: Fraction

    def rescaled(self, guided: "torch.Tensor", main: "torch.Tensor") -> "torch.Tensor":
        """`phi x std(main) / std(x) + (1 - phi) x`, standard deviations per picture over C, H, W."""
        axes = tuple(range(1, guided.ndim))
        ratio = main.std(axes, keepdim=True) / guided.std(axes, keepdim=True)
        return self.phi * guided * ratio + (1 - self.phi) * guided


class APG(Settings):
    """Adaptive projected guidance (arXiv 2410.02416, algorithm 1), on each term's direction d = main - reference.

    d takes `momentum` times the running direction, is clipped to the norm `norm`, and its part parallel to the main
    prediction is multiplied by `eta`. The defaults are the paper's; eta 1 without momentum and norm is plain guidance.
    """

    name: Literal["apg"]
    eta: float = 0.0
    momentum: Annotated[float, Field(gt=-1, lt=1)] | None = -0.5
    norm: Annotated[float, Field(gt=0)] | None = 15.0

    def averaged(self, direction: "torch.Tensor", average: "torch.Tensor | None") -> "torch.Tensor":
        """The running direction: `average` is that of the step before, None at the first."""
        return direction if average is None or self.momentum is None else direction + self.momentum * average

    def projected(self, direction: "torch.Tensor", main: "torch.Tensor") -> "torch.Tensor":
        """The clipped direction with its part along `main` weighted by eta, all [B, C, H, W]."""
        axes = tuple(range(1, direction.ndim))
        if self.norm is not None:
            direction = direction * (self.norm / direction.square().sum(axes, keepdim=True).sqrt()).clamp(max=1)
        along = (direction * main).sum(axes, keepdim=True) / main.square().sum(axes, keepdim=True) * main
        return direction - along + self.eta * along


class Guider(Settings):
    """Any guider of `diffusers.guiders`, by its class name, with the arguments of its constructor.

    The arm's scale becomes its `guidance_scale`; the terms, in their order, become the predictions that its `forward`
    takes beside `pred_cond` (for most one, `pred_uncond`). Its own start and stop take the place of a schedule.
    CFG-Zero* (arXiv 2503.18886) is ClassifierFreeZeroStarGuidance with zero_init_steps 0.
    """

    name: Literal["guider"]
    guider: str
    arguments: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _constructs(self) -> "Guider":
        from diffusers import guiders

        known = {
            name: kind
            for name, kind in vars(guiders).items()
            if inspect.isclass(kind) and issubclass(kind, guiders.BaseGuidance) and kind is not guiders.BaseGuidance
        }
        if self.guider not in known:
            raise ValueError(f"guider '{self.guider}' is unknown; known guiders: {', '.join(sorted(known))}")
        parameters = inspect.signature(known[self.guider].__init__).parameters
        if "guidance_scale" not in parameters:
            raise ValueError(f"guider {self.guider} has no guidance_scale to take the arm's scale")
        if "guidance_scale" in self.arguments:
            raise ValueError("guidance_scale is the arm's scale; leave it out of the guider's arguments")
        if unknown := sorted(set(self.arguments) - set(parameters)):
            allowed = ", ".join(p for p in parameters if p not in ("self", "guidance_scale"))
            raise ValueError(f"guider {self.guider} takes no {', '.join(unknown)}; it takes {allowed}")
        try:
            self.build(1.0)
        except (TypeError, ValueError, ImportError) as error:
            raise ValueError(f"guider {self.guider} refuses its arguments: {' '.join(str(error).split())}") from None
        return self

    def build(self, scale: float) -> "BaseGuidance":
        """The guider, fresh: it keeps momentum of its own from step to step."""
        from diffusers import guiders
        from diffusers.utils import logging

        logger = logging.get_logger("diffusers.guiders.guider_utils")
        level = logger.level
        logger.setLevel(logging.ERROR)  # each guider warns once an instance that guiders are experimental
        try:
            guider: BaseGuidance = getattr(guiders, self.guider)(guidance_scale=scale, **self.arguments)
            return guider
        finally:
            logger.setLevel(level)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The predictions its `forward` takes beside `pred_cond`, in order."""
        from diffusers import guiders

        return tuple(getattr(guiders, self.guider)._input_predictions[1:])


def place_guider(guider: "BaseGuidance", at: Moment) -> bool:
    """Tell a guider where sampling is; returns whether it needs more than the main prediction there."""
    guider.set_state(step=at.index, num_inference_steps=at.steps, timestep=at.timestep)
    # The modular pipelines call this before every step; without any data all it does is to start momentum at step 0.
    guider.prepare_inputs({})
    return int(guider.num_conditions) > 1
