"""Post-processes that set negatives against the empty prompt.

With D = main - empty and N = negative - empty each of them takes something else for the direction main - negative =
D - N of every negative; the empty prompt's weight stays s - 1 unless it says so. Where a paper's formula is
`empty + w (D - ...)`, w is the scale of the term `empty`. The weight s - 1 of a negative's term is what multiplies its
own direction, so that schedules and shares act on it as on any term, and scales of 1 are the main prediction bit for
bit. All of them act before the terms are summed.
"""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from pipeline.guidance.postprocess.post_process import Evaluation, Memory, PostProcess, Push, Space, per_image
from pipeline.guidance.scale_schedules import Fraction

if TYPE_CHECKING:  # a study is composed without torch
    import torch

_EMPTY = "empty"


class _Contrast(PostProcess):
    """A post-process that sets negatives against the empty prompt."""

    acts_on: ClassVar[Literal["directions", "result"]] = "directions"
    every_term: ClassVar[bool] = True
    contrasts: ClassVar[bool] = True


def _apart(pushes: list[Push]) -> tuple[Push, list[Push]]:
    """The push away from the empty prompt, and those away from negatives."""
    (empty,) = (push for push in pushes if push.name == _EMPTY)
    return empty, [push for push in pushes if push.name != _EMPTY]


class PerpNeg(_Contrast):
    """Perp-Neg (arXiv 2304.04968, algorithm 1): of a negative, only what is perpendicular to D.

    guided = main + (s - 1) D - sum_i (s_i - 1) perp_i,    perp_i = N_i - <N_i, D> / <D, D> D

    with products over C, H, W of each image. The paper's `empty + w (D - b perp)` has s = w and s_i - 1 = w b. Checked
    against ComfyUI's node, which takes one product over the whole batch. Differences of predictions are multiples of
    each other in all spaces at one noise level, so there is no space to choose.
    """

    name: Literal["perp_neg"]
    space: Literal["output"] = "output"

    def directed(self, pushes: list[Push], seen: Evaluation, memory: Memory) -> list[Push]:
        empty, negatives = _apart(pushes)
        d = empty.direction
        axes = per_image(d)
        squared = d.square().sum(axes, keepdim=True)
        made = [empty]
        for push in negatives:
            n = d - push.direction
            # A prompt that is the empty text has no direction for anything to be parallel to.
            share = (n * d).sum(axes, keepdim=True) / squared.where(squared > 0, 1.0)
            made.append(push.along(share * d - n))
        return made


class Contrastive(_Contrast):
    """Contrastive CFG (CCFG, arXiv 2411.17077): pushes that depend on how far each prediction is from the empty one.

    guided = empty + s l(|D|^2) D - sum_i (s_i - 1) (2 - l(|N_i|^2)) N_i,    l(q) = 2 / (1 + exp(-tau q))

    with squared norms over C, H, W of each image: away from the empty prompt up to twice as far while the prompt is
    far from it, and hardly away from a negative that is far from it. Checked against the authors' code, whose guidance
    scale is s and s_i - 1, and whose tau is 0.2 for latents of Stable Diffusion. They predict noise; `space` is noise
    unless given, and tau is in its units. tau 0 is the plain sum of terms with N_i in place of N_i - D.
    """

    name: Literal["ccfg"]
    tau: Annotated[float, Field(ge=0)] = 0.2
    space: Space = "noise"

    def directed(self, pushes: list[Push], seen: Evaluation, memory: Memory) -> list[Push]:
        empty, negatives = _apart(pushes)
        d = empty.direction
        made = [empty, empty.along(d, (empty.weight + 1) * (self._factor(d) - 1))]
        for push in negatives:
            n = d - push.direction
            made.append(push.along(-(2 - self._factor(n)) * n))
        return made

    def _factor(self, direction: "torch.Tensor") -> "torch.Tensor":
        return 2 * (self.tau * direction.square().sum(per_image(direction), keepdim=True)).sigmoid()


class _Tracked(_Contrast):
    """What SLD and SEGA share: a push m with momentum, which acts from a share of the steps on.

    m = g + `momentum` nu,    nu <- `keep` nu + (1 - keep) m,    nu = 0 at first

    where g is the push of this step alone. Before `warmup` it is tracked and not used.
    """

    warmup: Fraction
    momentum: Annotated[float, Field(ge=0, le=10)]
    keep: Annotated[float, Field(ge=0, lt=1)]
    space: Space = "noise"

    def tracked(self, key: str, now: "torch.Tensor", seen: Evaluation, memory: Memory) -> "torch.Tensor | None":
        """m, or None before `warmup`; `key` names what is tracked."""
        before = memory.get(key)
        if before is not None:
            now = now + self.momentum * before
        memory[key] = (1 - self.keep) * now + (0 if before is None else self.keep * before)
        return now if seen.at.index >= int(self.warmup * seen.at.steps) else None


class SafeLatent(_Tracked):
    """Safe latent diffusion (SLD, arXiv 2211.05105, equations 3 to 8): a negative where the prompt comes close to it.

    guided = main + (s - 1) D - sum_i (s_i - 1) m_i,    g_i = mu_i N_i,
    mu_i = min(`strength` |main - negative_i|, 1) where main - negative_i < `threshold`, else 0

    value by value, with m_i from g_i by `momentum` and `keep`. The paper's scale is s and s_i - 1. Checked against
    diffusers' StableDiffusionPipelineSafe; the defaults are its configuration MEDIUM, whose warmup is 10 of 50 steps.
    `space` is noise unless given: strength and threshold are in its units. strength 0 is classifier-free guidance.
    """

    name: Literal["sld"]
    strength: Annotated[float, Field(ge=0)] = 1000.0
    threshold: float = 0.01
    warmup: Fraction = 0.2
    momentum: Annotated[float, Field(ge=0, le=10)] = 0.3
    keep: Annotated[float, Field(ge=0, lt=1)] = 0.4

    def directed(self, pushes: list[Push], seen: Evaluation, memory: Memory) -> list[Push]:
        empty, negatives = _apart(pushes)
        made = [empty]
        for push in negatives:
            distance = push.direction  # main - negative
            mu = (self.strength * distance.abs()).clamp(max=1).where(distance < self.threshold, 0.0)
            away = self.tracked(push.name, mu * (empty.direction - distance), seen, memory)
            if away is not None:
                made.append(push.along(-away))
        return made


class SEGA(_Tracked):
    """Semantic guidance (SEGA, arXiv 2301.12247, equations 4 to 8) away from concepts: their largest values alone.

    guided = main + (s - 1) D - m,    g = sum_i (s_i - 1) N_i where |N_i| is among its channel's largest, else 0

    with m from g by `momentum` and `keep`. A value is among the largest where it is not below the quantile `threshold`
    of |N_i| over H, W of its image and channel. Checked against diffusers' SemanticStableDiffusionPipeline with
    `reverse_editing_direction`, whose `edit_guidance_scale` is s_i - 1; the defaults are its own, with a warmup of 10
    of 50 steps. `space` is noise unless given. Scales of 1 of the negatives are classifier-free guidance.
    """

    name: Literal["sega"]
    threshold: Fraction = 0.9
    warmup: Fraction = 0.2
    momentum: Annotated[float, Field(ge=0, le=10)] = 0.1
    keep: Annotated[float, Field(ge=0, lt=1)] = 0.4

    def directed(self, pushes: list[Push], seen: Evaluation, memory: Memory) -> list[Push]:
        empty, negatives = _apart(pushes)
        parts = [push.weight * self._largest(empty.direction - push.direction) for push in negatives]
        away = self.tracked("concepts", sum(parts[1:], parts[0]), seen, memory)
        return [empty] if away is None else [empty, negatives[0].along(-away, 1.0)]

    def _largest(self, n: "torch.Tensor") -> "torch.Tensor":
        size = n.abs()
        least = size.flatten(2).quantile(self.threshold, 2)[..., None, None]
        return n.where(size >= least, 0.0)
