"""How different the images of one prompt are."""

import torch
from torch import Tensor


def within_prompt_spread(features: Tensor, prompts: Tensor) -> float:
    """The mean variance of features [N, D] within a prompt, in squared feature units.

    `prompts` [N] int64 numbers the prompts. Each prompt's variance is unbiased (its sum over D of n - 1 means); a
    prompt weighs by n - 1, as in the within part of an analysis of variance. Prompts with one image say nothing.
    Raises ValueError where no prompt has two images.
    """
    features = features.double()
    _, member, count = torch.unique(prompts, return_inverse=True, return_counts=True)
    degrees = int((count - 1).sum())
    if degrees < 1:
        raise ValueError(f"diversity within a prompt needs a prompt with 2 images; {len(count)} prompts have 1 each")
    sums = torch.zeros(len(count), features.shape[1], dtype=torch.float64).index_add_(0, member, features)
    centred = features - (sums / count[:, None])[member]
    return float(centred.square().sum()) / degrees
