"""Post-processes of the guided prediction that give it back the size of the main one."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from pipeline.guidance.postprocess.post_process import Evaluation, Memory, PostProcess, Space, per_image
from pipeline.guidance.scale_schedules import Fraction

if TYPE_CHECKING:  # a study is composed without torch
    import torch


class Rescale(PostProcess):
    """Give the guided prediction back the standard deviation of the main one, by the share `phi`.

    arXiv 2305.08891, section 3.4 (equations 15 and 16); `guidance_rescale` of diffusers. It acts on the network's
    output unless `space` says otherwise, as diffusers' pipelines do, after the terms are summed. phi 0 is none.
    """

    acts_on: ClassVar[Literal["directions", "result"]] = "result"

    name: Literal["rescale"]
    phi: Fraction

    def finished(self, guided: "torch.Tensor", seen: Evaluation, memory: Memory) -> "torch.Tensor":
        """`phi x std(main) / std(x) + (1 - phi) x`, standard deviations per image over C, H, W."""
        if not seen.guides:
            return guided
        axes = per_image(guided)
        ratio = seen.main.std(axes, keepdim=True) / guided.std(axes, keepdim=True)
        return self.phi * guided * ratio + (1 - self.phi) * guided


class Renorm(PostProcess):
    """Give the guided prediction back the norm of the main one, after the terms are summed.

    `per` image, the norm is over C, H, W; per token, over the channels at each position; per patch, over those of 2 x 2
    positions, which are what FLUX.1, Chroma and Qwen-Image call a token; per row, over the positions of each row of
    each channel. Without a `cap` both norms become equal; with one, a prediction is scaled down where its norm is above
    `cap` times the main one's.

    Checked against diffusers: per patch without a cap is Qwen-Image's, per image with a cap is Z-Image's
    `cfg_normalization`, per row Lumina 2's. All three networks predict the flow, so `space` is v unless given. A scale
    of 1 is the main prediction bit for bit, and so is any scale where guided and main agree.
    """

    acts_on: ClassVar[Literal["directions", "result"]] = "result"

    name: Literal["renorm"]
    per: Literal["image", "token", "patch", "row"]
    cap: Annotated[float, Field(gt=0, le=100)] | None = None
    space: Space = "v"

    def finished(self, guided: "torch.Tensor", seen: Evaluation, memory: Memory) -> "torch.Tensor":
        if not seen.guides:
            return guided
        norm, wanted = self._norm(guided), self._norm(seen.main)
        # Where the guided prediction is zero there is no direction to give a norm to.
        ratio = (wanted if self.cap is None else self.cap * wanted) / norm.where(norm > 0, 1.0)
        return guided * (ratio if self.cap is None else ratio.clamp(max=1)).where(norm > 0, 1.0)

    def _norm(self, x: "torch.Tensor") -> "torch.Tensor":
        """[B, 1, 1, 1] per image, [B, C, H, 1] per row, else [B, 1, H, W]."""
        axes = {"image": per_image(x), "row": (3,)}.get(self.per, (1,))
        squares = x.square().sum(axes, keepdim=True)
        if self.per == "patch":
            import torch.nn.functional as F

            # Sums; where the sides are odd, of the positions that are there.
            sums = F.avg_pool2d(squares, _PATCH, ceil_mode=True, divisor_override=1)
            squares = sums.repeat_interleave(_PATCH, 2).repeat_interleave(_PATCH, 3)[..., : x.shape[2], : x.shape[3]]
        return squares.sqrt()


# Positions of a patch in each direction.
_PATCH = 2
