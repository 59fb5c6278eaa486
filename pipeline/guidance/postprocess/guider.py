"""Any guider of diffusers as a post-process: it combines the predictions by itself."""

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from pipeline.guidance.postprocess.post_process import Evaluation, Memory, PostProcess
from pipeline.guidance.scale_schedules import Moment

if TYPE_CHECKING:  # a study is composed without torch and diffusers
    import torch
    from diffusers.guiders import BaseGuidance


class Guider(PostProcess):
    """Any guider of `diffusers.guiders`, by its class name, with the arguments of its constructor.

    The arm's scale becomes its `guidance_scale`; the terms, in their order, become the predictions that its `forward`
    takes beside `pred_cond` (for most one, `pred_uncond`). Its own start and stop replace a schedule.
    CFG-Zero* (arXiv 2503.18886) is ClassifierFreeZeroStarGuidance with zero_init_steps 0. It acts on the network's
    output, as in diffusers' pipelines.
    """

    acts_on: ClassVar[Literal["directions", "result"]] = "result"
    alone: ClassVar[bool] = True

    name: Literal["guider"]
    space: Literal["output"] = "output"
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
        """A new guider, since guiders carry momentum from step to step."""
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

    def acts(self, scales: Sequence[float], at: Moment, memory: Memory) -> bool:
        # All terms of a guider have the arm's scale, see Arm.
        guider = memory.setdefault("guider", self.build(scales[0]))
        guider.set_state(step=at.index, num_inference_steps=at.steps, timestep=at.timestep)
        # The modular pipelines call this before every step; without any data it only starts momentum at step 0.
        guider.prepare_inputs({})
        return int(guider.num_conditions) > 1

    def finished(self, guided: "torch.Tensor", seen: Evaluation, memory: Memory) -> "torch.Tensor":
        inputs = dict(zip(self.inputs, (push.reference for push in seen.pushes), strict=False))
        output: torch.Tensor = memory["guider"].forward(pred_cond=seen.main, **inputs).pred
        return output
