"""Post-processes that change the direction main - reference of each term, whatever its reference is."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from pipeline.guidance.postprocess.post_process import Evaluation, Memory, PostProcess, Push, Space, per_image

if TYPE_CHECKING:  # a study is composed without torch
    import torch


class APG(PostProcess):
    """Adaptive projected guidance (arXiv 2410.02416, algorithm 1), on each term's direction d = main - reference.

    d takes `momentum` times the running direction, is clipped to the norm `norm`, and its part parallel to the main
    prediction is multiplied by `eta`, before the terms are weighted and summed. The defaults are the paper's; eta 1
    without momentum and norm is plain guidance. The paper projects in x0; `space` is the network's output unless given,
    as in diffusers.
    """

    acts_on: ClassVar[Literal["directions", "result"]] = "directions"

    name: Literal["apg"]
    eta: float = 0.0
    momentum: Annotated[float, Field(gt=-1, lt=1)] | None = -0.5
    norm: Annotated[float, Field(gt=0)] | None = 15.0

    def directed(self, pushes: list[Push], seen: Evaluation, memory: Memory) -> list[Push]:
        made = []
        for push in pushes:
            direction = push.direction
            if self.momentum is not None and push.name in memory:
                direction = direction + self.momentum * memory[push.name]
            memory[push.name] = direction
            made.append(push.along(self._projected(direction, seen.main)))
        return made

    def _projected(self, direction: "torch.Tensor", main: "torch.Tensor") -> "torch.Tensor":
        """The clipped direction with its part along `main` weighted by eta, all [B, C, H, W]."""
        axes = per_image(direction)
        if self.norm is not None:
            direction = direction * (self.norm / direction.square().sum(axes, keepdim=True).sqrt()).clamp(max=1)
        along = (direction * main).sum(axes, keepdim=True) / main.square().sum(axes, keepdim=True) * main
        return direction - along + self.eta * along


class SlidingMode(PostProcess):
    """SMC-CFG: sliding mode control of the guidance (arXiv 2603.03281), on each term's direction e = main - reference.

    With the surface s = (e - e') + `surface` e', where e' is the corrected direction of the step before (e itself at
    the first),

        e* = e - gain sign(s),    guided = reference + scale e*,

    value by value, before the terms are summed; e* is remembered. Checked against the authors' code, whose lambda and K
    are `surface` and `gain`; 5 and 0.2 are their values for images. They act on the velocity of flow networks, so
    `space` is v unless given. gain 0 is plain guidance bit for bit.
    """

    acts_on: ClassVar[Literal["directions", "result"]] = "directions"

    name: Literal["smc"]
    surface: Annotated[float, Field(ge=0, le=100)] = 5.0
    gain: Annotated[float, Field(ge=0, le=10)] = 0.2
    space: Space = "v"

    def directed(self, pushes: list[Push], seen: Evaluation, memory: Memory) -> list[Push]:
        made = []
        for push in pushes:
            before = memory.get(push.name, push.direction)
            switched = -self.gain * (push.direction - before + self.surface * before).sign()
            memory[push.name] = push.direction + switched
            # reference + s e* = main + (s - 1) e + s (e* - e)
            made += [push, push.along(switched, push.weight + 1)]
        return made
