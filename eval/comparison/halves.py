"""The prompts of a study in two halves: what is chosen or fitted on one is told of the other."""

import torch
from torch import Tensor


def halves(prompts: Tensor) -> tuple[Tensor, Tensor]:
    """The numbers of the pairs of every other prompt, and of the rest, given every pair's prompt [N]."""
    _, order = torch.unique(prompts, return_inverse=True)
    even = order % 2 == 0
    return even.nonzero().flatten(), (~even).nonzero().flatten()
