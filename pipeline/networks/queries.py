"""Queries of attention, blurred over the positions of an image (smoothed energy guidance, arXiv 2408.00760)."""

import math

import torch
import torch.nn.functional as F


def blurred(queries: torch.Tensor, height: int, width: int, blur: float | None) -> torch.Tensor:
    """Queries [B, H W, D] after a Gaussian of standard deviation `blur` over their positions; None is the mean."""
    if blur is None:
        return queries.mean(1, keepdim=True).expand_as(queries)
    depth = queries.shape[-1]
    maps = queries.transpose(1, 2).reshape(-1, depth, height, width)
    for axis, length in ((2, height), (3, width)):
        # The authors' width (six standard deviations, odd), cut so that reflection has something to reflect.
        radius = min(math.ceil(6 * blur) // 2, length - 1)
        offsets = torch.arange(-radius, radius + 1, dtype=torch.float32)
        kernel = torch.softmax(-0.5 * (offsets / blur).square(), 0).to(queries)
        weight = kernel.view(1, 1, *(-1 if a == axis else 1 for a in (2, 3))).expand(depth, 1, -1, -1)
        padding = (0, 0, radius, radius) if axis == 2 else (radius, radius, 0, 0)
        maps = F.conv2d(F.pad(maps, padding, mode="reflect"), weight, groups=depth)
    return maps.flatten(2).transpose(1, 2)
